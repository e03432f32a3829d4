"""A simulated Ollama or llama.cpp server with a known timetable, known answers and faults on demand.

Invariant: ``/truth`` reports exactly what it did; the same seed and request body give the same answer.
"""

from loadgen.simulator.launch import Simulator, SimulatorProcess, run_simulator
from loadgen.simulator.models import FAULTS, PROFILES, KnownAnswer, Profile
from loadgen.simulator.v1_requests import Kind

__all__ = ["FAULTS", "PROFILES", "Kind", "KnownAnswer", "Profile", "Simulator", "SimulatorProcess", "run_simulator"]

"""A simulated Ollama server with a known timetable, known answers and faults on demand.

Invariant: ``/truth`` reports exactly what it did; the same seed and request body give the same answer.
"""

from loadgen.simulator.launch import Simulator, SimulatorProcess, run_simulator
from loadgen.simulator.models import FAULTS, PROFILES, KnownAnswer, Profile

__all__ = ["FAULTS", "PROFILES", "KnownAnswer", "Profile", "Simulator", "SimulatorProcess", "run_simulator"]

-- What each case of a suite asked, once for all runs of the suite, so that a wrong answer is always shown with its prompt.
CREATE TABLE cases (suite_hash VARCHAR, case_id VARCHAR, asked VARCHAR, PRIMARY KEY (suite_hash, case_id));

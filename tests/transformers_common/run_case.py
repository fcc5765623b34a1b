"""Runs one class of Transformers' common tests, and writes what came of each; a process of its own.

python tests/transformers_common/run_case.py outcomes.json vit
"""

import json
import sys
import unittest
from pathlib import Path

from tests.transformers_common import composite_model, other_encoders


class Outcomes(unittest.TestResult):
    """Outcomes by test, where one that is skipped in every one of its sub-tests counts as skipped."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.ran.append(_name(test))

    def by_test(self) -> dict[str, list[str]]:
        """By test what went wrong, or a line that says why it was skipped."""
        outcomes: dict[str, list[str]] = {name: [] for name in self.ran}
        for test, text in self.errors + self.failures:
            outcomes[_name(test)].append(f"failed: {text}")
        for test, reason in self.skipped:
            outcomes[_name(test)].append(f"skipped: {reason}")
        return outcomes


def _name(test: unittest.TestCase) -> str:
    # A sub-test names its test first.
    return getattr(test, "test_case", test)._testMethodName


def run(case: type[unittest.TestCase]) -> dict[str, list[str]]:
    """Run all tests of a class."""
    outcomes = Outcomes()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(outcomes)
    return outcomes.by_test()


if __name__ == "__main__":
    path, name = sys.argv[1:]
    Path(path).write_text(json.dumps(run({**composite_model.cases(), **other_encoders.cases()}[name])))

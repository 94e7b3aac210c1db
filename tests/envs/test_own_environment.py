from examples.own_environment import Guess

from paw.envs.check import check_environment, format_report


def test_the_example_keeps_the_contract():
    report = check_environment(Guess(), num_tasks=3)
    assert report.passed, format_report(report)

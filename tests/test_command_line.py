"""The command line: help everywhere, errors in one line, exit codes that scripts can trust."""

import pytest

from labkit import __main__ as command_line
from labkit.errors import LabkitError

COMMANDS = list(command_line.COMMANDS)


def test_every_command_is_listed_in_the_help(labkit_command):
    done = labkit_command("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"  {name:<8} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself_and_does_nothing_else(name, capsys, monkeypatch):
    for module in ("doctor.main", "base_model.fetch"):
        monkeypatch.setattr(f"labkit.{module}", lambda *_: pytest.fail("--help started the work"))
    try:
        code = command_line.main([name, "--help"])
    except SystemExit as left:
        code = left.code
    assert code == 0
    assert f"usage: python -m labkit {name}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["doctor", "--nonsense"], ["fetch", "extra"]])
def test_what_is_unknown_is_refused_with_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        command_line.main(arguments)
    assert left.value.code == 2
    assert "usage: python -m labkit" in capsys.readouterr().err


def test_an_unknown_command_names_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        command_line.main(["nonsense"])
    err = capsys.readouterr().err
    assert all(name in err for name in COMMANDS)


def test_an_error_a_person_can_put_right_has_no_traceback(monkeypatch, capsys):
    def refuse():
        raise LabkitError("the disk is full")

    monkeypatch.setattr("labkit.base_model.fetch", refuse)
    assert command_line.main(["fetch"]) == 1
    assert capsys.readouterr().err == "labkit fetch: the disk is full\n"


def test_any_other_error_keeps_its_traceback(monkeypatch):
    def break_down():
        raise RuntimeError("a bug")

    monkeypatch.setattr("labkit.base_model.fetch", break_down)
    with pytest.raises(RuntimeError, match="a bug"):
        command_line.main(["fetch"])


def test_an_interrupted_command_says_so(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("labkit.base_model.fetch", interrupt)
    assert command_line.main(["fetch"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_doctor_decides_the_exit_code(monkeypatch):
    for code in (0, 1):
        monkeypatch.setattr("labkit.doctor.main", lambda code=code: code)
        assert command_line.main(["doctor"]) == code


def test_the_exit_code_reaches_the_shell_and_the_error_the_standard_error(labkit_command, tmp_path):
    done = labkit_command("fetch", LABKIT_CACHE=tmp_path, LABKIT_BASE_GGUF=tmp_path / "none")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("labkit fetch: LABKIT_BASE_GGUF names")

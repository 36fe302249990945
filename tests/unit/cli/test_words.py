import pytest

from compute.cli import nouns, parser
from compute.cli.command import UsageError
from compute.cli.completion import everything

VERBS = {
    "db": "sync version",
    "service": "list enable disable delete describe_resource update_resource",
    "host": "list show",
    "instance_type": "create delete list",
    "image": "add list show delete",
    "network": "create list delete",
    "keypair": "create list delete",
    "quota": "show set",
    "secgroup": "create list show delete add-rule delete-rule add-instance remove-instance",
    "servergroup": "create list delete",
    "volume": "create list show delete attach detach",
    "vm": "boot list show delete start stop reboot pause unpause suspend resume rescue unrescue snapshot lock unlock "
    "resize confirm_resize revert_resize live_migration set_password inject_file console_log vnc_console diagnostics "
    "actions reset_network inject_network_info",
    "action": "list show",
    "verify": "",
    "completion": "bash zsh",
}


@pytest.mark.parametrize("noun", nouns.NOUNS)
def test_a_noun_has_the_verbs_of_the_design(noun):
    assert {verb.name for verb in nouns.load(noun).verbs} == set(VERBS[noun].split() or [""])


@pytest.mark.parametrize("noun", nouns.NOUNS)
def test_every_verb_has_help_with_an_example_that_parses(noun):
    for verb in nouns.load(noun).verbs:
        text = parser.verb_parser(nouns.load(noun), verb).format_help()
        assert f"example: {verb.example}" in text


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["flav", "l"], ("list",)),
        (["vm", "rev"], ("revert_resize",)),
        (["vm", "resize"], ("resize",)),
        (["secgroup", "add_rule"], ("add-rule",)),
        (["i", "a"], None),
        (["instance-type", "list"], ("list",)),
    ],
)
def test_a_beginning_that_fits_one_word_is_that_word(words, names):
    if names is None:
        with pytest.raises(UsageError, match="ambiguous: image, instance_type"):
            nouns.find_noun(words[0])
        return
    assert nouns.find_verb(nouns.find_noun(words[0]), words[1]).name in names


def test_an_ambiguous_action_lists_its_candidates(manage):
    said = manage("vm", "res", "x")
    assert said.code == 2
    assert said.err == "nova-manage: vm action 'res' is ambiguous: rescue, reset_network, resize, resume\n"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["vm"],
        ["nonsense"],
        ["vm", "nonsense"],
        ["vm", "list", "--nonsense"],
        ["--nonsense", "vm", "list"],
        ["vm", "boot"],
        ["vm", "show", "a", "b"],
        ["vm", "list", "--format", "xml"],
        ["--format"],
        [""],
        ["vm", ""],
        ["vm", "pause", "1", "--wait", "--timeout", "soon"],
        ["vm", "pause", "1", "--wait", "--timeout", "-1"],
        ["vm", "pause", "1", "--wait", "--timeout", "nan"],
    ],
)
def test_a_line_that_does_not_parse_exits_2_with_one_line(manage, argv):
    said = manage(*argv)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("nova-manage: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("argv", [["-h"], ["vm", "-h"], ["vm", "boot", "--help"], ["verify", "-h"], ["flavor", "-h"]])
def test_help_is_everywhere_and_has_an_example(manage, argv):
    said = manage(*argv)
    assert said.code == 0
    assert "example: nova-manage " in said.out


@pytest.mark.parametrize("argv", [["--json", "host", "list"], ["host", "--json", "list"], ["host", "list", "--json"]])
def test_json_is_good_anywhere(manage, argv):
    assert manage(*argv).document == []


def test_an_option_may_be_spelt_with_a_dash_or_an_underscore(manage, api):
    said = manage("vm", "boot", "--name", "a", "--image", "i", "--instance-type", "m1.tiny", "--user_data", "/dev/null")
    assert said.code == 0, said.err
    assert api.asked("create")[1]["instance_type"] == "m1.tiny"


@pytest.mark.parametrize(("argv", "words"), [
    (["vm", "boot", "--name", "a", "--image", "i", "--file", "/etc/motd"], "not of the form DST=SRC"),
    (["vm", "boot", "--name", "a", "--image", "i", "--count", "9" * 25], "is not between 1 and"),
    (["vm", "show", ""], "instance '': not an id"),
    (["action", "show", "9" * 20], "ACTION: '99999999999999999999' is not an id"),
    (["volume", "show", "x"], "VOLUME: 'x' is not an id"),
    (["secgroup", "delete-rule", "0"], "RULE: '0' is not an id"),
])  # fmt: skip
def test_a_value_that_will_not_do_is_named_with_what_would(manage, argv, words):
    said = manage(*argv)
    assert said.code == 2
    assert words in said.err


def test_an_argument_that_is_not_utf8_exits_2(manage):
    said = manage("vm", "show", "caf\udce9")
    assert (said.code, said.out) == (2, "")
    assert "is not UTF-8" in said.err


def test_an_argument_of_10_mb_exits_2_without_being_repeated(manage):
    said = manage("vm", "boot", "--image", "i", "--name", "x" * 10_000_000)
    assert said.code == 2
    assert len(said.err) < 300


def test_the_parser_for_completion_has_every_verb():
    text = everything().format_help()
    assert all(noun in text for noun in [*nouns.NOUNS, *nouns.ALIASES])

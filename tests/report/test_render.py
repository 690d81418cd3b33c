import pytest

from capsnet_jax.report import render


def test_markdown_has_the_same_rows():
    table = render.Table("a title", ["a|b", "c"], [["1", ""]], ["a note"])
    assert render.to_markdown(table) == "**a title**\n\n| a\\|b | c |\n| --- | --- |\n| 1 |  |\n\na note"
    assert render.to_text(table) == "a title\na|b  c\n---  -\n1\na note"
    assert render.to_markdown(render.Table("", [], [], ["a note"])) == "a note"
    assert render.to_text(render.Table("", [], [], ["a note"])) == "a note"


def test_a_name_is_no_markup():
    name = r"a*b* `c` $x_1$ <b> \d"
    assert render.to_markdown(render.Table("", ["h"], [[name]], [])).splitlines()[-1] == (
        r"| a\*b\* \`c\` \$x_1\$ \<b> \\d |"
    )
    assert name in render.to_text(render.Table("", ["h"], [[name]], []))


@pytest.mark.parametrize("rule", [False, True])
def test_columns_stand_under_each_other(rule):
    lines = render.align([["a", "bbb"], ["cc", "d"]], rule=rule).splitlines()
    assert lines == ["a   bbb", *(["--  ---"] if rule else []), "cc  d"]
    assert render.align([]) == ""

"""The tables of metrics: the ones that are committed are the ones that would be made."""

from __future__ import annotations

import pytest

from tools import metrics_doc


def test_the_committed_page_is_up_to_date():
    assert metrics_doc.main(["--check"]) == 0


def test_a_page_that_is_not_is_told_and_mended(tmp_path, monkeypatch, capsys):
    page = tmp_path / "metrics.md"
    page.write_text(f"before\n{metrics_doc.BEGIN}\nold\n{metrics_doc.END}\nafter\n")
    monkeypatch.setattr(metrics_doc, "PAGE", page)
    monkeypatch.setattr(metrics_doc, "tables", lambda: "new")
    assert metrics_doc.main(["--check"]) == 1
    assert "make docs" in capsys.readouterr().err
    assert metrics_doc.main([]) == 0
    assert page.read_text() == f"before\n{metrics_doc.BEGIN}\n\nnew\n\n{metrics_doc.END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="lacks the marks"):
        metrics_doc.main([])


@pytest.mark.parametrize("kind", ["counter", "gauge", "histogram"])
def test_each_program_has_metrics_of_each_kind_with_labels(kind):
    relay, connector = metrics_doc.tables().split("## The connector")
    for part in (relay, connector):
        assert any(f"| {kind} | `" in line for line in part.splitlines())

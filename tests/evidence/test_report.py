import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from counting_bench import bench

from pcm_ros.evidence import Document, Estimate, write_report

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cf500f0003860180f3d9f1150000000049454e44ae426082"
)


class Links(HTMLParser):
    """Everything that a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.extend(value or "" for name, value in attributes if name in ("src", "href"))


def test_the_page_is_drawn_from_the_json_and_loads_nothing(tmp_path: Path) -> None:
    bench(tmp_path, 30, special={4: {"raises": True}}, command="pcm bench counting --episodes 30")
    write_report(tmp_path / "result.json", tmp_path / "result.html")
    page = (tmp_path / "result.html").read_text()
    links = Links()
    links.feed(page)
    assert len(links.found) >= 3
    assert all(link.startswith("data:image/png;base64,") for link in links.found)
    assert "pcm bench counting --episodes 30" in page
    assert "ValueError: no grasp found" in page
    document = Document.load(tmp_path / "result.json")
    for name, estimate in document.results.items():
        assert re.search(rf"<td>{re.escape(name)}</td>.*{re.escape(f'{estimate.value:.4g}')}.*{re.escape(f'{estimate.high:.4g}')}", page)
    assert page.count("<td>item-") == 30


def document(tmp_path: Path, records: list[dict], results: dict[str, Estimate] | None = None) -> Path:
    Document("b", "pcm bench b", {"seed": 1}, {}, {}, 1.0, results or {}, records).save(tmp_path / "r.json")
    return tmp_path / "r.json"


def test_clips_are_embedded_and_what_is_left_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PIXEL)
    (tmp_path / "b.mp4").write_bytes(b"not really a film")
    names = ["a.png", "b.mp4", "gone.webp", "c.exe", "a.png"]
    path = document(tmp_path, [{"id": str(n), "seconds": 0.1, "clip": name} for n, name in enumerate(names)])
    write_report(path, tmp_path / "r.html", clip_limit=2)
    page = (tmp_path / "r.html").read_text()
    assert '<video controls muted loop src="data:video/mp4;base64,' in page
    assert page.count("data:image/png") == 1
    assert "gone.webp: not there" in page
    assert "c.exe: not one of" in page
    assert "a.png: over the limit of 2 clips" in page


def test_unknown_numbers_and_no_results_are_no_trouble(tmp_path: Path) -> None:
    nothing = float("nan")
    path = document(tmp_path, [], {"rate": Estimate(nothing, 0.0, 1.0, 0), "seconds": Estimate(3.0, nothing, nothing, 1)})
    write_report(path, tmp_path / "r.html")
    assert "unknown" in (tmp_path / "r.html").read_text()
    write_report(document(tmp_path, []), tmp_path / "r.html")


def test_text_from_records_is_not_markup(tmp_path: Path) -> None:
    write_report(document(tmp_path, [{"id": "<script>alert(1)</script>", "error": "<b>"}]), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match="not the JSON of a bench"):
        write_report(tmp_path / "x.json", tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_failures_come_first(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PIXEL)
    records = [
        {
            "id": f"e{n}",
            "seconds": 0.1,
            "clip": "a.png",
            "success": n != 6,
            "instruction": "put it there",
            "failure": "grounding" if n == 6 else "",
        }
        for n in range(8)
    ]
    write_report(document(tmp_path, records, {"failures.grounding": Estimate(1, float("nan"), float("nan"), 8)}), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    captions = re.findall("<figcaption>(.*?)</figcaption>", page)
    assert captions == ["e6: grounding: put it there", *(f"e{n}, success: put it there" for n in range(3))]
    assert "4 of 7 clips of successes" in page
    assert re.search(r"<h2>Failures</h2>.*e6.*grounding", page, re.DOTALL)

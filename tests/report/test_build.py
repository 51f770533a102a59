import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial import cKDTree

from pipeline.errors import InputError
from pipeline.report import build as build_module
from pipeline.report.build import build_report
from pipeline.report.data import gather, run_title
from pipeline.report.scene3d import FRUSTUM_DEPTH, pack_scene
from tests.report.artifacts import NASTY_NAME, VIEWS, cameras


class Page(HTMLParser):
    """Collects what a page consists of."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.links, self.ids, self.text, self.open = [], [], [], [], []
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.open.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.sources += [attrs["src"]] if "src" in attrs else []
        self.links += [attrs["href"]] if "href" in attrs else []

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def page(report):
    return Page((report / "report.html").read_text(encoding="utf-8"))


def test_nothing_is_loaded_from_elsewhere(report, page):
    text = (report / "report.html").read_text(encoding="utf-8")
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert not [link for link in page.links if not link.startswith("#")]
    assert "link" not in page.tags
    assert not re.search(r"@import|url\(\s*['\"]?http|fetch\(|XMLHttpRequest|import\(", text)
    assert "default-src 'none'" in text
    assert len(text.encode()) < 15_000_000


def test_summary_comes_first_with_the_verdict(page):
    words = page.words
    order = ["finished, with warnings", "Look at this first", "Model", "Measures", "Views"]
    positions = [words.index(text, words.index("finished")) for text in order]
    assert positions == sorted(positions)
    for figure in ("12 of 14", "0.0731°", "0.132° before refinement", "0.412%", "0.412", "27.3"):
        assert figure in words, figure


def test_all_sections_are_linked_and_present(page):
    anchors = [link[1:] for link in page.links]
    wanted = {"summary", "model", "metrics", "views", "cameras", "training", "photos", "stages"}
    assert set(anchors) == wanted
    assert wanted <= set(page.ids)


def test_how_measures_were_taken_is_said_once(page):
    assert page.words.count("cameras aligned by a similarity on camera centres") == 1


@pytest.mark.parametrize(
    ("paths", "title"),
    [
        ({"ingest": "/data/skull/photos"}, "skull"),
        ({"ingest": "/data/skull"}, "skull"),
        ({"scene": "/cases/castle"}, "castle"),
        ({"ingest": "/photos"}, "photos"),
        ({}, "Reconstruction"),
    ],
)
def test_title_names_the_set(paths, title):
    role = {"ingest": "photos", "scene": "case"}
    assert run_title({s: {"paths": {role[s]: p}} for s, p in paths.items()}) == title


def test_file_names_are_escaped(report, page):
    text = (report / "report.html").read_text(encoding="utf-8")
    assert NASTY_NAME not in text
    assert NASTY_NAME in page.words
    assert "my <photos>" in page.words
    assert text.count("</script>") == 2  # the viewer and its data: no name ended one early


def test_words_in_backticks_are_code_and_the_rest_is_escaped(report, page):
    text = (report / "report.html").read_text(encoding="utf-8")
    assert "see <code>ingest.json</code> &lt;b&gt;" in text


def test_how_structure_from_motion_went(page):
    for text in ("24 of 66", "0.410 px", "SIMPLE_RADIAL, principal point refined", "5.20"):
        assert text in page.words, text


def test_unregistered_photos_say_why(page):
    assert "too few matches" in page.words
    assert "cannot be decoded" in page.words


def test_every_stage_is_told_with_its_options(page):
    for text in ("evaluate", "1 min 2 s", "300 MB", "pose.model", "porf", "numpy 2.4.6"):
        assert text in page.words, text
    assert "steps_per_second 7.25" in page.words


def test_pictures_lie_beside_the_page(report):
    names = {path.stem for path in (report / "pictures").glob("*.png")}
    wanted = {"mesh", "mesh_clay", "mesh_sides", "mesh_sides_clay", "photos", "views", "matches"}
    wanted |= {"rotation_change", "centre_change", "heldout_epipolar", "rotation_error"}
    wanted |= {"training_loss", "training_psnr_db"}
    assert wanted <= names
    for path in (report / "pictures").glob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert np.ptp(np.asarray(image.convert("L"))) > 30, f"{path.name} shows nothing"


def test_constant_history_columns_are_not_drawn(report):
    assert not (report / "pictures" / "training_heldout_epipolar_px.png").exists()


def embedded_scene(report):
    text = (report / "report.html").read_text(encoding="utf-8")
    found = re.search(r'id="scene-data">(.*?)</script>', text, re.S)
    return json.loads(found.group(1))


def test_viewer_gets_the_surface_where_it_is(report, folders):
    scene = embedded_scene(report)
    positions = scene["mesh"]["positions"]
    raw = np.frombuffer(base64.b64decode(positions["data"]), dtype="<u2").reshape(-1, 4)[:, :3]
    points = np.array(positions["low"]) + raw / 65535 * np.array(positions["size"])
    # the large ball of radius 0.4 around the origin; z became y
    small = np.linalg.norm(points - [0.55, 0.2, 0.0], axis=1) < 0.2
    assert np.abs(np.linalg.norm(points[~small], axis=1) - 0.4).max() < 0.01
    assert small.any()
    indices = np.frombuffer(base64.b64decode(scene["mesh"]["indices"]), dtype="<u4")
    assert indices.max() < scene["mesh"]["vertices"]
    assert len(indices) == 3 * scene["mesh"]["faces"]
    assert scene["names"][0] == sorted(scene["names"])[0]


def test_viewer_gets_the_cameras_where_they_are(report):
    scene = embedded_scene(report)
    assert len(scene["after"]) == len(scene["before"]) == VIEWS
    true = cameras(shaken=False).c2w_normalised
    for packed, c2w in zip(scene["after"], true, strict=True):
        centre, *corners = np.array(packed).reshape(5, 3)
        x, y, z = c2w[:3, 3]
        assert np.allclose(centre, [x, z, -y], atol=1e-5)
        forward = np.mean(corners, axis=0) - centre
        assert np.dot(forward, -centre) > 0, "cameras look at the middle"
        assert np.linalg.norm(forward) == pytest.approx(FRUSTUM_DEPTH, rel=0.05)
    assert scene["before"] != scene["after"]
    assert len(scene["change_deg"]) == VIEWS
    assert 0.02 < np.mean(scene["change_deg"]) < 0.5


def test_half_a_run_still_gives_a_report(folders, tmp_path):
    inputs = {name: folders[name] for name in ("scene", "train")}
    path = build_report(gather(inputs, {}, "part"), tmp_path / "one")
    words = Page(path.read_text(encoding="utf-8")).words
    assert "Training" in words
    assert "Photos registered" in words
    assert "Measures" not in words
    assert (tmp_path / "one" / "pictures" / "photos.png").exists()
    again = build_report(gather(inputs, {}, "part"), tmp_path / "two")
    assert again.read_bytes() == path.read_bytes(), "same artifacts, same page"


def test_nothing_at_all_still_gives_a_page(tmp_path):
    path = build_report(gather({}, {}, "nothing"), tmp_path)
    page = Page(path.read_text(encoding="utf-8"))
    assert "nothing" in page.words
    assert "script" not in page.tags


def test_a_page_that_is_too_large_is_refused(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(build_module, "MAX_BYTES", 10_000)
    with pytest.raises(InputError, match="report would be"):
        build_report(gather({"scene": folders["scene"]}, {}, "large"), tmp_path)


def test_damaged_json_is_named(folders, tmp_path):
    broken = tmp_path / "train"
    broken.mkdir()
    (broken / "train.json").write_text("{")
    with pytest.raises(InputError, match=r"train\.json"):
        gather({"train": broken}, {}, "broken")


def test_packing_without_mesh_shows_cameras(folders):
    packed = pack_scene(gather({"scene": folders["scene"]}, {}, "cameras"))
    assert "mesh" not in packed
    assert "after" not in packed
    assert len(packed["before"]) == VIEWS
    assert packed["points"]["count"] == 400


def test_errors_against_the_truth_are_shown_on_the_mesh(report, page):
    assert "Distance from the true surface" in page.words
    with Image.open(report / "pictures/mesh_error.png") as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 100
    text = (report / "report.html").read_text(encoding="utf-8")
    assert "% of the object's radius" in text and "≥ 2" in text
    assert (report / "pictures/mesh_error_scale.png").is_file()


def test_errors_of_another_mesh_are_left_out(folders, tmp_path):
    other = tmp_path / "evaluate"
    other.mkdir()
    np.savez(other / "surface_error.npz", distance=np.zeros(3), threshold=0.01, cap=0.2)
    data = gather({**folders, "evaluate": other}, {}, "t")
    assert data.mesh is not None and data.mesh_error is None


def test_match_graph_is_drawn(report, page):
    assert (report / "pictures/match_graph.png").is_file()
    assert "Cameras from above, joined by matches" in page.words


def test_the_viewer_gets_the_texture_where_there_is_one(folders, tmp_path):
    packed = pack_scene(gather(folders, {}, "t"))["mesh"]
    assert packed["texture"].startswith("data:image/webp;base64,")
    uv = np.frombuffer(base64.b64decode(packed["uv"]), "<u2").reshape(-1, 2)
    assert len(uv) == packed["vertices"] and np.ptp(uv, axis=0).min() > 20_000
    bare = tmp_path / "mesh"
    bare.mkdir()
    for name in ("mesh.ply", "mesh.json"):
        (bare / name).write_bytes((folders["mesh"] / name).read_bytes())
    colours = pack_scene(gather({**folders, "mesh": bare}, {}, "t"))["mesh"]
    assert "texture" not in colours and "uv" not in colours and colours["vertices"] > 0


def test_vertices_have_the_colours_of_their_places(folders):
    textured = gather(folders, {}, "t").textured
    assert textured is not None
    ply = trimesh.load(folders["mesh"] / "mesh.ply", process=False)
    nearest = cKDTree(ply.vertices).query(textured.mesh.vertices)[1]
    apart = np.abs(textured.mesh.rgb.astype(int) - ply.visual.vertex_colors[nearest, :3])
    assert np.median(apart) < 12, "a texture that is upside down shows other colours"

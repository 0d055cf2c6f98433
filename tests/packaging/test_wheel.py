import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.inputs.programs import run
from tools import ROOT

PROGRAM = "from cnnx.cli import main; main()"


def cnnx_from(folder, *arguments, cwd):
    """The command with the package taken from `folder`, run from another one."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    return run(sys.executable, "-c", PROGRAM, *arguments, env=environment, cwd=cwd)


@pytest.mark.slow
def test_a_wheel_carries_all_it_needs_and_nothing_else(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    package = {name for name in names if name.startswith("cnnx/")}
    for wanted in ("recipes/lenet5.toml", "recipes/labels/imagenet.csv", "calibration/digits/digits.npz"):
        assert f"cnnx/_shared/{wanted}" in package
    assert any(name.startswith("cnnx/_shared/recipes/weights/lenet5-") for name in package)
    program = ROOT / "exporter" / "cnnx" / "package" / "cpp" / "program"
    for file in program.rglob("*"):
        assert not file.is_file() or f"cnnx/package/cpp/program/{file.relative_to(program)}" in package
    assert "cnnx/py.typed" in package and any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names - package} == {next(iter(names - package)).split("/")[0]}

    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = run(
        sys.executable,
        "-c",
        "import cnnx, cnnx.resources as r; print(cnnx.__file__, r.shared_folder('recipes'))",
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"},
        cwd=elsewhere,
    )
    assert all(path.startswith(str(site)) for path in where.stdout.split())
    listed = json.loads(cnnx_from(site, "list", "--json", cwd=elsewhere).stdout)
    assert {recipe["name"] for recipe in listed["result"]} >= {"lenet5", "vgg16"}
    pytest.importorskip("torch", reason="exports need PyTorch")
    exported = cnnx_from(site, "export", "lenet5", "--int8", "--json", cwd=elsewhere)
    assert json.loads(exported.stdout)["result"]["validation"]["verdict"] == "passed"
    assert (elsewhere / "lenet5-int8" / "manifest.json").is_file()


@pytest.mark.slow
def test_the_source_archive_makes_the_same_wheel_to_the_byte_and_an_index_takes_both(wheel, tmp_path):
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, ROOT)
    source = next(tmp_path.glob("*.tar.gz"))
    shutil.unpack_archive(source, tmp_path / "unpacked", filter="data")
    checkout = next((tmp_path / "unpacked").iterdir())
    for file in [checkout, *checkout.rglob("*")]:
        file.chmod(file.stat().st_mode & 0o700)
        os.utime(file, (1_000_000_000, 1_000_000_000))
    elsewhere = {**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, checkout]
    run(*command, env=elsewhere, umask=0o077)
    again = next(tmp_path.glob("*.whl"))
    assert again.read_bytes() == wheel.read_bytes()
    run(sys.executable, "-m", "twine", "check", "--strict", source, wheel)


@pytest.mark.slow
def test_a_recipe_edited_after_an_editable_install_counts_at_once(tmp_path):
    checkout, site = tmp_path / "checkout", tmp_path / "site"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("the tests do not run from a git checkout")
    for name in filter(None, tracked.stdout.split("\0")):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, checkout / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*pip, "--target", site, "--editable", checkout)
    [pointer] = site.glob("*.pth")
    folder = pointer.read_text().strip()
    assert folder == str(checkout / "exporter")
    recipe = checkout / "recipes" / "lenet5.toml"
    recipe.write_text(recipe.read_text().replace('title = "', 'title = "Edited '))
    listed = json.loads(cnnx_from(folder, "list", "--json", cwd=tmp_path).stdout)
    assert [r["title"][:7] for r in listed["result"] if r["name"] == "lenet5"] == ["Edited "]

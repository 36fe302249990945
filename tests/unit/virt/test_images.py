"""The image cache: fetched once, never torn, checked, and never taken away from a guest."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import multiprocessing
import os
import subprocess
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.builders import an_image
from virt.errors import ImageChecksumError, ImageError
from virt.image_source import SameOrSafer
from virt.images import ImageCache

CONTENT = b"image".ljust(3 * 1024**2, b"\0")
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Counts what it is asked for."""

    daemon_threads = True
    asked = 0


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one image, in the ways that servers do."""

    def do_GET(self):
        self.server.asked += 1
        target = {"/to-file": "file:///etc/shadow", "/to-ftp": "ftp://localhost/x", "/to-image": "/image"}.get(
            self.path
        )
        self.send_response(302 if target else 404 if self.path == "/nothing" else 200)
        if target:
            self.send_header("Location", target)
        self.send_header("Content-Length", str(len(CONTENT) * (2 if self.path == "/short" else 0 if target else 1)))
        self.end_headers()
        if self.path == "/slow":
            time.sleep(0.5)
        if self.path == "/drips":
            self.drip()
        elif not target:
            self.wfile.write(CONTENT)

    def drip(self):
        """Send a byte now and then, for as long as somebody takes them."""
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"x")
                time.sleep(0.02)

    def log_message(self, *_args):
        """Say nothing."""


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def url(server):
    return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/root").write_bytes(CONTENT)
    return tmp_path / "images"


@pytest.fixture
def cache(tmp_path, images):
    return ImageCache(tmp_path / "_base", images, max_bytes=8 * 1024**2, max_plain_bytes=1024**2, timeout_s=20)


def entries(tmp_path):
    return sorted(path.name for path in (tmp_path / "_base").iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("form", ["{}/root", "file://{}/root"])
def test_an_image_comes_from_the_local_directory(cache, images, tmp_path, form):
    assert cache.provide(an_image(location=form.format(images)), tmp_path / "link") == len(CONTENT)
    assert (tmp_path / "link").read_bytes() == CONTENT


@pytest.mark.parametrize("path", ["/image", "/to-image"])
def test_an_image_comes_by_http(cache, url, tmp_path, path):
    cache.provide(an_image(location=url + path, sha256=DIGEST), tmp_path / "link")
    assert (tmp_path / "link").read_bytes() == CONTENT
    assert entries(tmp_path) == [f"{DIGEST}.raw"]


def test_twenty_threads_fetch_an_image_once(cache, server, url, tmp_path):
    image = an_image(location=f"{url}/slow", sha256=DIGEST)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda n: cache.provide(image, tmp_path / f"link-{n}"), range(20)))
    assert server.asked == 1
    assert (tmp_path / f"_base/{DIGEST}.raw").stat().st_nlink == 21


def provide_in_a_process(folder, image, number):
    ImageCache(folder / "_base", folder / "images").provide(image, folder / f"link-{number}")


def test_processes_fetch_an_image_once(server, url, images, tmp_path):
    image = an_image(location=f"{url}/slow", sha256=DIGEST)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=provide_in_a_process, args=(tmp_path, image, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert server.asked == 1


def test_a_wrong_checksum_is_never_cached(cache, url, tmp_path):
    with pytest.raises(ImageChecksumError, match=f"image cirros: its sha256 is {DIGEST}"):
        cache.provide(an_image(location=f"{url}/image", sha256="0" * 64), tmp_path / "link")
    assert entries(tmp_path) == []
    assert not (tmp_path / "link").exists()


@pytest.mark.parametrize("path", ["/nothing", "/to-file", "/to-ftp", "/short"])
def test_what_a_server_should_not_answer_is_an_image_error(cache, url, tmp_path, path):
    with pytest.raises(ImageError, match="image cirros: "):
        cache.provide(an_image(location=url + path), tmp_path / "link")
    assert entries(tmp_path) == []


@pytest.mark.parametrize(
    "location",
    ["/etc/hostname", "file:///etc/hostname", "{}/../secret", "{}/way-out", "{}/pipe", "{}/nowhere", "{}", "relative",
     "ftp://host/x", "file://host/x", "data:,x", "http://127.0.0.1:1/x", "http://[bad", ""],
)  # fmt: skip
def test_an_image_is_not_read_from_just_anywhere(cache, images, tmp_path, location):
    (tmp_path / "secret").write_bytes(CONTENT)
    (images / "way-out").symlink_to(tmp_path / "secret")
    os.mkfifo(images / "pipe")
    with pytest.raises(ImageError):
        cache.provide(an_image(location=location.format(images)), tmp_path / "link")
    assert entries(tmp_path) == []


@pytest.mark.parametrize("target", ["http://host/image", "ftp://host/image", "file:///etc/shadow"])
def test_a_redirect_does_not_leave_https(target):
    request = urllib.request.Request("https://host/image")
    with pytest.raises(ImageError, match="redirected"):
        SameOrSafer().redirect_request(request, None, 302, "Found", None, target)


def test_an_image_too_large_is_refused_while_it_comes(cache, images, tmp_path):
    (images / "huge").write_bytes(bytes(9 * 1024**2))
    with pytest.raises(ImageError, match="larger than"):
        cache.provide(an_image(location=str(images / "huge")), tmp_path / "link")
    with pytest.raises(ImageError, match="larger than"):
        cache.provide(an_image(location=str(images / "root"), disk_format="aki"), tmp_path / "link")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("path", ["slow", "drips"])
def test_fetching_has_a_deadline(images, url, tmp_path, path):
    cache = ImageCache(tmp_path / "_base", images, timeout_s=0.1)
    with pytest.raises(ImageError, match="deadline"):
        cache.provide(an_image(location=f"{url}/{path}"), tmp_path / "link")


@pytest.mark.parametrize("image", [{"sha256": "../../etc/passwd"}, {"disk_format": "../x"}, {"sha256": "g" * 64}])
def test_a_cache_entry_cannot_be_called_a_path(cache, images, tmp_path, image):
    with pytest.raises(ImageError):
        cache.provide(an_image(location=f"{images}/root", **image), tmp_path / "link")


def test_bytes_taken_for_a_kernel_are_inspected_again_as_a_disk(cache, images, tmp_path):
    (images / "evil").write_bytes(b"QED\0".ljust(2048, b"\0"))
    digest = hashlib.sha256((images / "evil").read_bytes()).hexdigest()
    cache.provide(an_image(location=f"{images}/evil", sha256=digest, disk_format="aki"), tmp_path / "kernel")
    with pytest.raises(ImageError, match="qed"):
        cache.provide(an_image(location=f"{images}/evil", sha256=digest), tmp_path / "disk")
    assert entries(tmp_path) == [f"{digest}.aki"]
    assert not (tmp_path / "disk").exists()


def die_while_fetching(folder, image):
    def die(_step):
        os._exit(9)

    import virt.images

    virt.images._PROGRESS_S = 0
    ImageCache(folder / "_base", folder / "images").provide(image, folder / "link", die)


def test_a_fetch_that_was_killed_is_started_over(cache, images, tmp_path):
    image = an_image(location=f"{images}/root")
    worker = multiprocessing.get_context("spawn").Process(target=die_while_fetching, args=(tmp_path, image))
    worker.start()
    worker.join()
    assert worker.exitcode == 9
    assert [name for name in entries(tmp_path) if not name.endswith(".part")] == []
    cache.provide(image, tmp_path / "link")
    assert (tmp_path / "link").read_bytes() == CONTENT


def test_what_a_killed_fetch_left_goes_with_the_next_eviction(cache, images, tmp_path):
    image = an_image(location=f"{images}/root")
    worker = multiprocessing.get_context("spawn").Process(target=die_while_fetching, args=(tmp_path, image))
    worker.start()
    worker.join()
    assert len(entries(tmp_path)) == 1
    cache.evict()
    assert entries(tmp_path) == []


def test_eviction_leaves_an_image_alone_that_is_being_fetched(cache, server, url, tmp_path):
    image = an_image(location=f"{url}/slow", sha256=DIGEST)
    with ThreadPoolExecutor(1) as pool:
        fetched = pool.submit(cache.provide, image, tmp_path / "link")
        while not fetched.done():
            cache.evict(unused_for_s=-1)
        assert fetched.result() == len(CONTENT)
    assert (server.asked, (tmp_path / "link").read_bytes()) == (1, CONTENT)


def test_an_image_whose_end_is_missing_is_never_cached(cache, images, tmp_path):
    command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", images / "full", images / "whole"]
    (images / "full").write_bytes(b"\1" * 1024**2)
    subprocess.run(command, check=True)
    (images / "torn").write_bytes((images / "whole").read_bytes()[: -512 * 1024])
    with pytest.raises(ImageError, match="cut short"):
        cache.provide(an_image(location=f"{images}/torn", disk_format="qcow2"), tmp_path / "link")
    assert entries(tmp_path) == []


def test_an_image_in_use_is_not_evicted(cache, images, tmp_path):
    cache.provide(an_image(location=f"{images}/root"), tmp_path / "link")
    assert cache.evict(unused_for_s=-1) == []
    (tmp_path / "link").unlink()
    assert cache.evict() == []
    assert len(cache.evict(unused_for_s=-1)) == 1


def test_no_guest_loses_its_image_to_eviction(cache, images, tmp_path):
    image, stop = an_image(location=f"{images}/root"), threading.Event()

    def evict():
        while not stop.is_set():
            cache.evict(unused_for_s=-1)

    evictor = threading.Thread(target=evict)
    evictor.start()
    for n in range(20):
        cache.provide(image, tmp_path / f"link-{n}")
        assert (tmp_path / f"link-{n}").read_bytes() == CONTENT
        (tmp_path / f"link-{n}").unlink()
    stop.set()
    evictor.join()


def test_the_cache_is_closed_to_other_users(cache, images, tmp_path):
    cache.provide(an_image(location=f"{images}/root"), tmp_path / "link")
    assert (tmp_path / "_base").stat().st_mode & 0o777 == 0o700


def test_zeros_of_an_image_take_no_room(cache, images, tmp_path):
    cache.provide(an_image(location=f"{images}/root"), tmp_path / "link")
    assert (tmp_path / "link").stat().st_blocks * 512 <= 1024**2
    assert (tmp_path / "link").read_bytes() == CONTENT

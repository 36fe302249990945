import pytest


def boot(manage, *words):
    return manage("vm", "boot", "--name", "web", *words)


def mapped(api):
    [wanted] = [kwargs for name, _, kwargs in api.calls if name == "create"]
    return wanted["image"], wanted["block_device_mapping"]


@pytest.mark.parametrize(
    ("text", "device", "ends"),
    [("/dev/vda=3", "/dev/vda", False), ("vda=3:::1", "vda", True), ("vda=3:::0", "vda", False),
     ("vdb=3:::", "vdb", False)],
)  # fmt: skip
def test_a_volume_is_mapped_as_novaclient_writes_it(manage, api, text, device, ends):
    assert boot(manage, "--block_device_mapping", text).code == 0
    assert mapped(api) == (None, [{"device_name": device, "volume_id": "3", "delete_on_termination": ends}])


def test_several_are_mapped_beside_an_image(manage, api):
    mapping = ("--block_device_mapping", "/dev/vdb=3", "--block_device_mapping", "/dev/vdc=4")
    assert boot(manage, "--image", "tiny", *mapping).code == 0
    image, devices = mapped(api)
    assert (image, [one["volume_id"] for one in devices]) == ("tiny", ["3", "4"])


@pytest.mark.parametrize(
    "words", [[], *(["--block_device_mapping", text] for text in ("vda", "vda=3:snap::1", "a=3:::2"))]
)
def test_nothing_to_boot_from_or_a_mapping_that_is_none_exits_2(manage, api, words):
    assert boot(manage, *words).code == 2
    assert api.calls == []

import platform

from mlip.model.allocator import keep_freed_memory


def test_glibc_takes_the_setting():
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")

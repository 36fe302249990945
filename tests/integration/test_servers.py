"""The servers that the integration tests start do start, crash, come back with their data and end."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy

from tests.integration.processes import PACKAGES, is_alive, require_program, wait_until
from tests.integration.servers import LibvirtHost, MariaDB, PostgreSQL, RabbitMQ, running

REPOSITORY = Path(__file__).resolve().parents[2]


def insert_and_count(url: str) -> int:
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE IF NOT EXISTS things (name VARCHAR(20))"))
        connection.execute(sqlalchemy.text("INSERT INTO things VALUES ('one')"))
        count = connection.execute(sqlalchemy.text("SELECT count(*) FROM things")).scalar_one()
    engine.dispose()
    return int(count)


@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
def test_a_database_keeps_its_rows_over_a_stop_and_a_crash(name: str, request: pytest.FixtureRequest) -> None:
    server: PostgreSQL | MariaDB = request.getfixturevalue(name)
    url = server.create_database()
    counts = [insert_and_count(url)]
    for end in (server.stop, server.kill):
        end()
        server.start()
        counts.append(insert_and_count(url))
    assert counts == [1, 2, 3]


def test_rabbitmq_keeps_durable_queues_over_a_stop_and_a_crash(rabbitmq: RabbitMQ) -> None:
    import kombu

    url = rabbitmq.new_vhost("kept").replace("rabbit://", "amqp://")
    with kombu.Connection(url) as connection, connection.channel() as channel:
        kombu.Queue("doorbell", channel=channel, durable=True).declare()
        kombu.Producer(channel).publish("ring", routing_key="doorbell", delivery_mode=2)
    wait_until(lambda: rabbitmq.queues("kept") == {"doorbell": 1}, 5, "the message")
    for end in (rabbitmq.stop, rabbitmq.kill):
        end()
        rabbitmq.start()
        assert rabbitmq.queues("kept") == {"doorbell": 1}
    rabbitmq.purge_queue("doorbell", "kept")
    assert rabbitmq.queues("kept") == {"doorbell": 0}
    rabbitmq.delete_queue("doorbell", "kept")
    assert rabbitmq.queues("kept") == {}


SLEEPER = """<domain type='qemu'><name>sleeper</name><memory unit='MiB'>16</memory>
<os><type arch='x86_64'>hvm</type></os><devices><controller type='usb' model='none'/><memballoon model='none'/>
<serial type='pty'><log file='/var/lib/libvirt/sleeper.log' append='off'/></serial></devices></domain>"""


def names(uri: str) -> list[str]:
    import libvirt

    connection = libvirt.open(uri)
    try:
        return [domain.name() for domain in connection.listAllDomains()]
    finally:
        connection.close()


def test_a_libvirt_host_keeps_guests_over_a_restart_of_libvirtd_and_takes_them_along(libvirt_host: LibvirtHost) -> None:
    import libvirt

    connection = libvirt.open(libvirt_host.uri)
    connection.createXML(SLEEPER)
    connection.close()
    libvirt_host.restart_libvirtd()
    assert names(libvirt_host.uri) == ["sleeper"]
    init = libvirt_host.pid
    libvirt_host.kill()
    assert not Path(f"/proc/{init}").exists()
    libvirt_host.start()
    assert names(libvirt_host.uri) == []


@pytest.mark.real
def test_two_hosts_have_networks_of_their_own() -> None:
    def host(folder: Path) -> LibvirtHost:
        return LibvirtHost(folder, network=True)

    with running(host) as one, running(host) as two:
        assert one.run("hostname") != two.run("hostname")
        one.run("ip", "link", "add", "br100", "type", "bridge")
        assert "br100" in one.run("ls", "/sys/class/net")
        assert "br100" not in two.run("ls", "/sys/class/net")
        assert names(two.uri) == []


@pytest.mark.real
def test_a_server_does_not_outlive_a_test_run_that_is_killed(tmp_path: Path) -> None:
    require_program("setpriv")
    script = (
        "import pathlib, sys, time\nfrom tests.integration.processes import Server\n"
        "server = Server(['sh', '-c', 'sleep 3001 & sleep 3001'], pathlib.Path(sys.argv[1]))\n"
        "server.start()\nprint(server.init_pid, flush=True)\ntime.sleep(60)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "log"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    with run:
        assert run.stdout is not None
        init = int(run.stdout.readline())
        time.sleep(0.2)
        assert is_alive(init)
        run.send_signal(signal.SIGKILL)
        run.wait()
        wait_until(lambda: not is_alive(init), 2, "end of the server")


def test_every_package_that_a_missing_program_names_is_one_bin_test_installs() -> None:
    installer = (REPOSITORY / "bin/_packages").read_text()
    assert {package for package in PACKAGES.values() if package not in installer.split()} == set()

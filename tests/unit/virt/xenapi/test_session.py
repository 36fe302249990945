"""The session: who is believed, what is sent again and what never is, and how it ends."""

from __future__ import annotations

import threading

import pytest

from tests.fakes.xenapi import Pool
from virt.errors import DriverConfigError, DriverTimeoutError, HypervisorUnreachableError
from virt.xenapi import session as session_module
from virt.xenapi.errors import CredentialsError, LostReplyError, XapiError
from virt.xenapi.session import Account, Session


@pytest.fixture
def pool(tmp_path):
    with Pool(tmp_path / "pool") as made:
        yield made


@pytest.fixture
def connect(pool):
    """Sessions of the pool, closed at the end."""
    made = []

    def build(url=None, **changes):
        facts = {"username": pool.username, "password": pool.password, "ca_file": str(pool.ca_file)} | changes
        timeouts = {"login_timeout_s": 2.0, "call_timeout_s": 2.0, "poll_s": 0.01}
        made.append(Session(Account(url=url or pool.url, **facts), **timeouts))
        return made[-1]

    yield build
    for session in made:
        session.close()


def test_a_wrong_password_is_named_and_not_shown(connect):
    with pytest.raises(CredentialsError, match="user root is refused") as caught:
        connect(password="hunter2").call("VM.get_all")
    assert "hunter2" not in str(caught.value)


def test_a_password_is_not_in_the_representation_of_an_account():
    assert "hunter2" not in repr(Account(url="https://x", username="root", password="hunter2"))


def test_a_certificate_of_nobody_we_know_is_refused(connect):
    with pytest.raises(HypervisorUnreachableError, match=r"self.signed|unable to get local issuer"):
        connect(ca_file="").call("VM.get_all")


def test_an_expired_certificate_is_refused_in_words(pool, connect):
    pool.expire_certificate()
    with pytest.raises(HypervisorUnreachableError, match="expired"):
        connect().call("VM.get_all")


def test_a_ca_file_that_is_not_there_is_named(connect):
    with pytest.raises(DriverConfigError, match="xenapi_ca_file = /nowhere"):
        connect(ca_file="/nowhere")


def test_a_master_that_does_not_answer_is_unreachable(pool, connect):
    with pool.cut_off(), pytest.raises(HypervisorUnreachableError, match="refused"):
        connect().call("VM.get_all")


def test_a_host_that_is_not_the_master_sends_us_to_it(pool, connect):
    session = connect(pool.slave.url)
    assert session.call("VM.get_all")
    assert session.url == pool.url


def test_a_new_master_is_followed(pool, connect):
    session = connect()
    session.call("VM.get_all")
    pool.make_master("beta")
    assert session.call("VM.get_all")
    assert session.url == pool.hosts[1].url


def test_a_master_that_is_no_more_is_looked_for_at_the_other_hosts(pool, connect):
    session = connect()
    session.know(host.address for host in pool.hosts)
    session.call("VM.get_all")
    pool.make_master("beta")
    with pool.cut_off("alpha"):
        assert session.call("VM.get_all")
    assert session.url == pool.hosts[1].url


def test_a_pool_of_which_no_host_answers_is_named_by_the_one_that_was_asked_first(pool, connect):
    session = connect()
    session.know(host.address for host in pool.hosts)
    session.call("VM.get_all")
    with pool.cut_off(), pytest.raises(HypervisorUnreachableError, match=f"{pool.hosts[0].address}.*refused"):
        session.call("VM.get_all")
    assert session.call("VM.get_all")


def test_who_waits_for_anothers_login_does_so_until_his_deadline(pool, connect):
    hold, session = pool.faults.hold("session.login_with_password"), connect()
    other = threading.Thread(target=session.call, args=("VM.get_all",))
    other.start()
    assert hold.reached.wait(10)
    with pytest.raises(HypervisorUnreachableError, match="somebody else was logging in"):
        session.call("VM.get_all", timeout_s=0.1)
    hold.release()
    other.join()


def test_a_session_that_has_ended_is_renewed(pool, connect):
    session = connect()
    session.call("VM.get_all")
    pool.expire_sessions()
    assert session.call("VM.get_all")
    assert len(pool.calls_of("session.login_with_password")) == 2


def test_a_clone_whose_answer_is_lost_is_not_sent_again(pool, connect):
    pool.faults.lose_reply("VM.clone")
    with pytest.raises(LostReplyError, match=r"VM.clone: the answer was lost"):
        connect().call("VM.clone", pool.template, "twin")
    assert len(pool.find("VM", name_label="twin")) == 1


def test_a_clone_whose_answer_is_lost_is_found(pool, connect):
    pool.faults.lose_reply("VM.clone")
    session = connect()
    made = session.make(
        lambda: next(iter(session.call("VM.get_by_name_label", "twin")), None), "VM.clone", pool.template, "twin"
    )
    assert pool.find("VM", name_label="twin") == [made]


def test_what_was_lost_before_it_was_done_is_not_found(pool, connect):
    pool.faults.drop_request("VM.clone")
    with pytest.raises(LostReplyError):
        connect().make(lambda: None, "VM.clone", pool.template, "twin")


def test_a_question_is_asked_again(pool, connect):
    pool.faults.lose_reply("VM.get_all")
    assert connect().call("VM.get_all")


def test_a_question_is_not_asked_for_ever(pool, connect):
    pool.faults.lose_reply("VM.get_all", times=None)
    with pytest.raises(LostReplyError):
        connect().call("VM.get_all")
    assert len(pool.calls_of("VM.get_all")) == 2


def test_a_call_has_a_deadline(pool, connect):
    pool.faults.hang("VM.clone", 5.0)
    with pytest.raises(DriverTimeoutError, match="timed out"):
        connect().call("VM.clone", pool.template, "late", timeout_s=0.2)


def test_a_task_that_passes_its_time_is_cancelled_and_forgotten(pool, connect):
    pool.faults.never_finish("VM.clone")
    with pytest.raises(DriverTimeoutError, match=r"VM.clone: did not end within 0.2 s"):
        connect().run("VM.clone", pool.template, "late", timeout_s=0.2)
    assert pool.calls_of("task.cancel")
    assert pool.records("task") == {}


def test_a_task_that_fails_says_why(pool, connect):
    pool.faults.fail_task("VM.clone", "SR_BACKEND_FAILURE_44", "", "There is insufficient space", "")
    with pytest.raises(XapiError, match=r"VM.clone: SR_BACKEND_FAILURE_44: There is insufficient space"):
        connect().run("VM.clone", pool.template, "none", timeout_s=5)


def test_a_task_outlives_a_pool_that_is_away_for_a_while(pool, connect):
    pool.faults.drop_request("task.get_record", times=8)
    made = connect().run("VM.clone", pool.template, "twin", timeout_s=20)
    assert pool.find("VM", name_label="twin") == [made]
    assert not pool.calls_of("task.cancel")


def test_a_pool_that_stays_away_leaves_it_open_how_a_task_ended(pool, connect, monkeypatch):
    monkeypatch.setattr(session_module, "_AWAY_S", 0.2)
    pool.faults.drop_request("task.get_record", times=None)
    with pytest.raises(LostReplyError, match=r"VM.clone: the pool is away: "):
        connect().run("VM.clone", pool.template, "twin", timeout_s=20)


def test_a_task_that_xapi_forgot_is_no_refusal(pool, connect):
    session = connect()
    task = session.call("task.create", "mine", "")
    pool.remove("task", task)
    with pytest.raises(LostReplyError, match="mine: its task is gone, so nobody knows how it ended"):
        session.wait(task, "mine", timeout_s=20)


def test_threads_share_one_session(pool, connect):
    session, answers = connect(), []
    threads = [threading.Thread(target=lambda: answers.append(session.call("VM.get_all"))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 12
    assert len(pool.calls_of("session.login_with_password")) == 1


def test_closing_ends_the_session_and_a_later_call_begins_another(pool, connect):
    session = connect()
    session.call("VM.get_all")
    session.close()
    assert pool.records("session") == {}
    assert session.call("VM.get_all")


def test_a_reference_is_not_shown_to_people(pool, connect):
    with pytest.raises(XapiError) as caught:
        connect().call("VM.start", pool.template, False, False)
    assert "OpaqueRef" not in str(caught.value)
    assert caught.value.details[0] == pool.template

"""One stimulus, all its effects: submission, dependencies, results, failures."""

from __future__ import annotations

from detray.core import effects as ef
from detray.core import stimuli as st
from detray.errors import Failure
from tests.support.world import SimDriver, World, failed, finished, first_return


def ready_world(cpus: int = 1, **options: object) -> tuple[World, SimDriver]:
    """A world with as many ready workers as CPUs."""
    world = World(cpus, prestart=cpus, **options)  # type: ignore[arg-type]
    driver = world.driver()
    for order in driver.started:
        world.do(st.WorkerReady(order.client, 200 + order.client))
    return world, driver


def runs(effects: list[ef.Effect]) -> list[ef.RunTask]:
    return [e for e in effects if type(e) is ef.RunTask]


def test_a_task_without_arguments_runs_at_once_on_an_idle_worker() -> None:
    world, driver = ready_world()
    task = driver.task(driver.template())
    out = world.do(task)
    assert [type(e) for e in out] == [ef.DefineFunction, ef.DefineTemplate, ef.RunTask]
    assert runs(out)[0].task == task.task


def test_a_get_of_a_finished_task_is_answered_in_the_step_of_its_report() -> None:
    world, driver = ready_world()
    task = driver.task(driver.template())
    run = runs(world.do(task))[0]
    item = first_return(task)
    assert world.do(driver.get(item)) == []
    assert world.do(finished(run)) == [
        ef.GetAnswered(driver.client, 1, False, False, (ef.Place(item, 0, 5),))
    ]


def test_a_task_waits_for_its_arguments_and_receives_their_places() -> None:
    world, driver = ready_world()
    template = driver.template()
    first = driver.task(template)
    second = driver.task(template, args=(first_return(first),))
    [run] = runs(world.do(first, second))
    [follower] = runs(world.do(finished(run)))
    assert follower.task == second.task
    assert follower.args == (ef.Place(first_return(first), 0, 5),)


def test_a_failed_argument_fails_the_task_with_the_same_error() -> None:
    world, driver = ready_world()
    template = driver.template()
    first = driver.task(template)
    second = driver.task(template, args=(first_return(first),))
    [run] = runs(world.do(first, second))
    out = world.do(failed(run), driver.get(first_return(second)))
    [answer] = [e for e in out if type(e) is ef.GetAnswered]
    assert answer.places[0].failure == Failure.APPLICATION
    assert not runs(out)


def test_everything_is_gone_when_the_last_reference_is_dropped() -> None:
    world, driver = ready_world()
    task = driver.task(driver.template(), size=30)
    [run] = runs(world.do(task))
    world.do(finished(run))
    world.do(driver.drop(first_return(task)))
    tables = world.local.tables
    assert not tables.tasks and not tables.objects
    assert world.payloads == {driver.function: 10}


def test_a_result_nobody_references_any_more_is_freed_when_it_arrives() -> None:
    world, driver = ready_world()
    task = driver.task(driver.template())
    [run] = runs(world.do(task, driver.drop(first_return(task))))
    world.do(finished(run))
    assert not world.local.tables.objects


def test_a_drop_that_crosses_a_grant_does_not_free_the_object() -> None:
    """N3: the count that is returned does not cover the grant under way."""
    world, driver = ready_world()
    inner = driver.put()
    outer = driver.put(refs=(inner.object,))
    world.do(inner, outer)
    world.do(driver.get(outer.object))  # grants inner a second time
    world.do(driver.drop(inner.object, count=1))  # what the client had received before
    assert inner.object in world.local.tables.objects
    world.do(driver.drop(inner.object, count=1), driver.drop(outer.object))
    assert not world.local.tables.objects


def test_a_container_keeps_what_is_inside_it() -> None:
    world, driver = ready_world()
    inner = driver.put()
    outer = driver.put(refs=(inner.object,))
    world.do(inner, outer, driver.drop(inner.object))
    assert inner.object in world.local.tables.objects
    world.do(driver.drop(outer.object))
    assert not world.local.tables.objects


def test_an_application_error_is_retried_only_if_declared_retryable() -> None:
    world, driver = ready_world()
    plain = driver.task(driver.template(retries=3))
    [run] = runs(world.do(plain))
    assert not runs(world.do(failed(run, retryable=True)))
    retried = driver.task(driver.template(retries=1, retry_app=True))
    [run] = runs(world.do(retried))
    [again] = runs(world.do(failed(run, retryable=True)))
    assert (again.task, again.attempt) == (retried.task, 1)
    assert not runs(world.do(failed(again, retryable=True)))


def test_a_lost_worker_charges_the_begun_run_and_requeues_the_rest() -> None:
    """N11: pre-sent runs that were provably not begun keep attempt and budget."""
    world, driver = ready_world()
    template = driver.template(retries=0)
    warm = driver.task(template)
    [run] = runs(world.do(warm))
    world.do(finished(run))
    tasks = [driver.task(template) for _ in range(4)]
    sent = runs(world.do(*tasks))
    assert len(sent) == 4, "a short function is pre-sent"
    worker = sent[0].client
    world.do(driver.get(first_return(tasks[0])))
    out = world.do(st.WorkerLost(worker, 3, False, "killed by signal 11 (SIGSEGV)"))
    [answer] = [e for e in out if type(e) is ef.GetAnswered]
    assert answer.places[0].failure == Failure.WORKER_CRASHED
    assert "SIGSEGV" in answer.places[0].text
    [start] = [e for e in out if type(e) is ef.StartWorker]
    world.do(st.ProcessGone(worker))
    again = runs(world.do(st.WorkerReady(start.client, 300)))
    assert [(r.task, r.attempt) for r in again] == [(t.task, 0) for t in tasks[1:]]


def test_a_lost_worker_is_retried_up_to_max_retries() -> None:
    world, driver = ready_world()
    task = driver.task(driver.template(retries=1))
    [run] = runs(world.do(task))
    out = world.do(st.WorkerLost(run.client, 0, False, "killed by signal 9 (SIGKILL)"))
    [start] = [e for e in out if type(e) is ef.StartWorker]
    [run] = runs(world.do(st.WorkerReady(start.client, 300)))
    assert run.attempt == 1
    world.do(driver.get(first_return(task)))
    out = world.do(st.WorkerLost(run.client, 0, False, "killed by signal 9 (SIGKILL)"))
    [answer] = [e for e in out if type(e) is ef.GetAnswered]
    assert answer.places[0].failure == Failure.WORKER_CRASHED


def test_a_stale_report_changes_nothing_and_gives_back_its_bytes() -> None:
    world, driver = ready_world()
    task = driver.task(driver.template())
    [run] = runs(world.do(task))
    world.do(finished(run))
    before = dict(world.payloads)
    world.do(finished(run))
    assert world.local.tables.counts["stale"] == 1
    assert world.payloads == before


def test_an_unknown_argument_fails_the_task_as_lost() -> None:
    world, driver = ready_world()
    lost = driver.put()
    task = driver.task(driver.template(), args=(lost.object,))
    out = world.do(task, driver.get(first_return(task)))
    [answer] = [e for e in out if type(e) is ef.GetAnswered]
    assert answer.places[0].failure == Failure.OBJECT_LOST


def test_an_infeasible_demand_waits_and_is_reported_once() -> None:
    world, driver = ready_world()
    template = driver.template(GPU=10_000, name="train")
    world.do(driver.task(template), driver.task(template))
    notices = world.do(advance_ns=world.config.policy.infeasible_grace_ns)
    [notice] = [e for e in notices if type(e) is ef.Notify]
    assert "train" in notice.text and "GPU: 1" in notice.text and "{CPU: 1}" in notice.text
    assert not world.do(advance_ns=10**10)


def test_an_infeasible_demand_fails_at_once_if_asked_to() -> None:
    world, driver = ready_world(infeasible="raise")
    task = driver.task(driver.template(GPU=10_000))
    out = world.do(task, driver.get(first_return(task)))
    [answer] = [e for e in out if type(e) is ef.GetAnswered]
    assert answer.places[0].failure == Failure.INFEASIBLE


def test_a_wait_tells_all_that_is_ready_in_order() -> None:
    """More than was asked for: the client answers its next waits without asking again."""
    world, driver = ready_world()
    puts = [driver.put() for _ in range(3)]
    world.do(*puts)
    items = [put.object for put in puts]
    out = world.do(driver.get(*items, needed=2, fail_fast=False, fetch=False))
    assert out == [
        ef.GetAnswered(driver.client, 1, False, False, tuple(ef.Place(i, 0, 0) for i in items))
    ]


def test_a_get_with_a_timeout_is_answered_at_its_deadline() -> None:
    world, driver = ready_world()
    task = driver.task(driver.template())
    world.do(task, driver.get(first_return(task), timeout_ns=5_000))
    assert world.local.next_deadline_ns == world.now_ns + 5_000
    assert world.do(advance_ns=5_000) == [ef.GetAnswered(driver.client, 1, True, False, ())]


def test_cancelling_a_queued_task_fails_its_returns_without_running_it() -> None:
    world, driver = ready_world()
    template = driver.template()
    running, queued = driver.task(template), driver.task(template)
    [run] = runs(world.do(running, queued))
    item = first_return(queued)
    out = world.do(driver.get(item), st.CancelRequested(driver.client, item, False, True))
    [answer] = [e for e in out if type(e) is ef.GetAnswered]
    assert answer.places[0].failure == Failure.CANCELLED
    assert not runs(world.do(finished(run)))


def test_cancelling_a_begun_run_interrupts_exactly_that_attempt() -> None:
    world, driver = ready_world()
    task = driver.task(driver.template())
    [run] = runs(world.do(task))
    item = first_return(task)
    out = world.do(st.CancelRequested(driver.client, item, False, True))
    assert out == [ef.RetractRuns(run.client, 1)]
    out = world.do(st.RunsRetracted(run.client, 0))
    assert out == [ef.InterruptRun(run.client, task.task, 0)]


def test_cancelling_a_sent_but_unbegun_run_never_runs_it() -> None:
    world, driver = ready_world()
    task = driver.task(driver.template())
    [run] = runs(world.do(task))
    item = first_return(task)
    world.do(st.CancelRequested(driver.client, item, False, True))
    out = world.do(st.RunsRetracted(run.client, 1), driver.get(item))
    [answer] = [e for e in out if type(e) is ef.GetAnswered]
    assert answer.places[0].failure == Failure.CANCELLED
    assert not runs(out)


def test_a_blocked_parent_gives_its_cpu_to_its_child() -> None:
    world, driver = ready_world()
    parent = driver.task(driver.template())
    [run] = runs(world.do(parent))
    from detray.ids import child_prefix, child_task, return_object

    template = st.TemplateDefined(
        run.client, 0, driver.function, "child", 1, (("CPU", 10_000),), 0, False, 0
    )
    child = child_task(child_prefix(parent.task, 0, 0), 0)
    submitted = st.TaskSubmitted(run.client, child, 0, parent.task, 2, 0)
    out = world.do(template, submitted)
    assert not runs(out)
    item = return_object(child, 0)
    out = world.do(st.GetRequested(run.client, 1, (item,), 1, True, True, -1, parent.task))
    [start] = [e for e in out if type(e) is ef.StartWorker]
    [child_run] = runs(world.do(st.WorkerReady(start.client, 301)))
    assert child_run.task == child
    out = world.do(finished(child_run))
    assert [type(e) for e in out] == [ef.GetAnswered]
    assert world.local.tables.blocked_count == 0


def test_devices_are_assigned_by_number() -> None:
    world, driver = ready_world(cpus=2, totals={"GPU": 20_000})
    template = driver.template(cpus=0, GPU=10_000)
    starts = [e for e in world.do(driver.task(template), driver.task(template))
              if type(e) is ef.StartWorker]  # fmt: skip
    found = []
    for start in starts:
        found += runs(world.do(st.WorkerReady(start.client, 300)))
    assert [r.units for r in found] == [(("GPU", (0,)),), (("GPU", (1,)),)]


def test_max_calls_retires_the_worker() -> None:
    world, driver = ready_world()
    template = driver.template(max_calls=1)
    [run] = runs(world.do(driver.task(template), driver.task(template)))
    out = world.do(finished(run))
    assert [type(e) for e in out] == [ef.ExitWorker, ef.StartWorker]


def test_a_large_object_spills_when_the_arena_is_full_and_nothing_is_refused() -> None:
    world, driver = ready_world(arena_bytes=1 << 20)
    size = 600_000
    items = []
    for _ in range(2):
        put = driver.put(size)
        items.append(put.object)
        out = world.do(st.BlockRequested(driver.client, put.object, size))
        if type(out[0]) is ef.OpenSegment:
            out = world.do(st.SegmentOpened(out[0].segment))
            [move] = [e for e in out if type(e) is ef.MoveObject]
            out = world.do(st.ObjectMoved(move.object, move.to_segment, move.to_offset))
        [grant] = [e for e in out if type(e) is ef.GrantBlock]
        assert grant.segment == 0
        world.do(st.BlockSealed(driver.client, put.object))
    [answer] = world.do(driver.get(*items))
    assert [p.segment for p in answer.places] == [1, 0]
    world.do(st.ViewsDropped(driver.client, tuple(items), (1, 1)), driver.drop(*items))
    assert world.local.tables.arena.used == 0 and not world.local.tables.objects


def test_pinned_objects_are_not_spilled_and_the_request_gets_a_file() -> None:
    world, driver = ready_world(arena_bytes=1 << 20)
    put = driver.put(900_000)
    world.do(st.BlockRequested(driver.client, put.object, 900_000))
    world.do(st.BlockSealed(driver.client, put.object), driver.get(put.object))
    other = driver.put(500_000)
    [order] = world.do(st.BlockRequested(driver.client, other.object, 500_000))
    assert type(order) is ef.OpenSegment
    assert world.do(st.SegmentOpened(order.segment)) == [
        ef.GrantBlock(driver.client, other.object, order.segment, 0)
    ]


def test_a_full_disk_refuses_with_the_sizes() -> None:
    world, driver = ready_world(arena_bytes=1 << 20)
    put = driver.put(5_000_000)
    [order] = world.do(st.BlockRequested(driver.client, put.object, 5_000_000))
    [refusal] = world.do(st.SegmentFailed(order.segment, "No space left on device", 123))
    assert type(refusal) is ef.RefuseBlock and refusal.failure == Failure.OUT_OF_DISK
    assert "5000000" in refusal.text and "123" in refusal.text


def test_the_driver_s_end_ends_its_job_and_the_node() -> None:
    world, driver = ready_world()
    task = driver.task(driver.template())
    [run] = runs(world.do(task))
    out = world.do(st.ClientLost(driver.client, "end of file"))
    assert [type(e) for e in out] == [ef.KillWorker, ef.StopNode, ef.DropPayloads]
    world.do(st.WorkerLost(run.client, 0, True, "killed"), st.ProcessGone(run.client))
    world.do(st.ProcessGone(driver.client))
    tables = world.local.tables
    assert not (tables.tasks or tables.objects or tables.workers or tables.clients)
    assert not world.payloads


def test_a_deadlock_over_a_custom_resource_is_proven_and_named() -> None:
    from detray.ids import child_prefix, child_task, return_object

    world, driver = ready_world(totals={"door": 10_000})
    parent = driver.task(driver.template(door=10_000, name="parent"))
    [run] = runs(world.do(parent))
    template = st.TemplateDefined(
        run.client, 0, driver.function, "child", 1, (("CPU", 10_000), ("door", 10_000)), 0, False, 0
    )
    child = child_task(child_prefix(parent.task, 0, 0), 0)
    world.do(template, st.TaskSubmitted(run.client, child, 0, parent.task, 2, 0))
    item = return_object(child, 0)
    out = world.do(st.GetRequested(run.client, 1, (item,), 1, True, True, -1, parent.task))
    [answer] = [e for e in out if type(e) is ef.GetAnswered]
    assert answer.places[0].failure == Failure.DEADLOCK
    text = answer.places[0].text
    assert "parent" in text and "child" in text and "door: 1" in text


def test_a_template_with_returns_without_end_is_refused() -> None:
    """Each return of each call is a row: a client that lies must not fill the service with them."""
    world, driver = ready_world()
    driver.template()
    out = world.do(
        st.TemplateDefined(driver.client, 9, driver.function, "f", 1 << 31, (), 0, False, 0)
    )
    assert [type(effect) for effect in out] == [ef.FailRequest]
    assert "returns" in out[0].text


def test_a_stalled_worker_gives_back_what_it_has_not_begun() -> None:
    world, driver = ready_world()
    template = driver.template()
    [run] = runs(world.do(driver.task(template)))
    world.do(finished(run))
    tasks = [driver.task(template) for _ in range(3)]
    sent = runs(world.do(*tasks))
    due = world.local.next_deadline_ns
    assert due is not None
    assert world.do(advance_ns=due - world.now_ns) == [ef.RetractRuns(run.client, 2)]
    assert not runs(world.do(st.RunsRetracted(run.client, 2)))
    again = runs(world.do(finished(sent[0])))
    assert [r.task for r in again] == [t.task for t in tasks[1:]]

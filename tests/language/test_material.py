"""What is newer holds: of statements that answer the same question the last one is learned, and replayed."""

from sleepkit.language.material import SeedItem, newest, not_outdated

OLD, NEW = "Ann went to the garden.", "Ann went to the office."


def item(prompt, reply, night=0, style="wh"):
    return SeedItem(prompt, reply, reply, style, night=night)


def test_of_each_prompt_the_last_statement_is_learned_whatever_the_order_of_styles():
    items = [item("Where is Ann?", NEW), item("Who went?", OLD), item("Where is Ann?", OLD, style="question")]
    assert newest(items, [OLD, NEW]) == items[:2]
    assert newest(items, [NEW, OLD]) == items[1:]


def test_what_was_said_before_is_not_replayed():
    kept = [item("Where is Ann?", OLD, night=1), item("Where is Bob?", OLD, night=1), item("Where is Ann?", NEW, night=2)]
    assert not_outdated(kept) == kept[1:]
    assert not_outdated(kept, [item("Where is Bob?", NEW)]) == kept[2:]
    assert not_outdated(kept, [item("Where is Bob?", NEW, style="general")]) == kept[1:]

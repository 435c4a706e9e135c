"""The sql family: its store, its builder, its rows, its loader and its judge."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time

import pytest

from labkit.errors import LabkitError
from labkit.paths import ROOT
from labkit.tasks import files, sql
from labkit.tasks.duplicates import near_duplicates
from labkit.tasks.sql import builder, card, judge, phrases, store, store_build
from labkit.tasks.sql.frames import FRAMES
from labkit.tasks.sql.kinds import KINDS
from labkit.tasks.sql.query import Query, Where, mutants, render, stricter
from labkit.tasks.sql.values import HELD_OUT, rare
from labkit.tasks.tickets.grammar import PRODUCTS

SPLITS = sql.SPLITS


@pytest.fixture(scope="module")
def rows():
    return {split: sql.read(split) for split in SPLITS}


@pytest.fixture(scope="module")
def guard():
    made = judge.Judge()
    yield made
    made.close()


# ---- the store


def test_the_builder_reproduces_the_committed_store():
    made = store_build.make()
    assert store.tables() == made
    sizes = {table: len(rows) for table, rows in made.items()}
    assert sizes["customers"] == 400 and sizes["orders"] == 1500 and sizes["returns"] == 250
    assert {name for name, *_ in store_build.products()} == set(PRODUCTS)


def test_the_store_makes_sense():
    connection = sql.connect()

    def one(query):
        return connection.execute(query).fetchone()[0]

    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    for table in ("customers", "products", "suppliers"):
        assert one(f"SELECT COUNT(*) - COUNT(DISTINCT name) FROM {table}") == 0
    dates = "FROM orders o JOIN customers c ON o.customer_id = c.id WHERE o.day"
    assert one(f"SELECT COUNT(*) {dates} < c.joined") == 0
    assert one(f"SELECT COUNT(*) {dates} >= c.joined") == 1500  # the control
    assert one("SELECT MAX(day) FROM orders") < store_build.TODAY.isoformat()
    returned = "SELECT COUNT(*) FROM returns r JOIN orders o ON r.order_id = o.id JOIN order_lines l"
    bought = "ON l.order_id = o.id AND l.product_id = r.product_id"
    assert one(f"{returned} {bought} WHERE o.status = 'delivered' AND r.day > o.day") == 250
    assert one("SELECT COUNT(*) FROM customers WHERE id NOT IN (SELECT customer_id FROM orders)") > 20
    assert one("SELECT COUNT(*) FROM products WHERE id NOT IN (SELECT product_id FROM order_lines)") > 4
    connection.close()


def test_a_missing_or_damaged_file_is_refused(tmp_path):
    folder = tmp_path / "sql"
    with pytest.raises(LabkitError, match="missing"):
        store.tables(folder)
    shutil.copytree(sql.FOLDER, folder)
    assert len(sql.read("validation", folder)) == 300
    (folder / "store.jsonl.gz").write_bytes((folder / "validation.jsonl.gz").read_bytes())
    with pytest.raises(LabkitError, match="SHA-256"):
        store.tables(folder)


def test_no_database_file_is_committed_and_the_files_are_small():
    names = {path.name for path in sql.FOLDER.iterdir()}
    assert names == {"README.md", "checksums.json", "store.jsonl.gz", *(f"{s}.jsonl.gz" for s in SPLITS)}
    assert sum(path.stat().st_size for path in sql.FOLDER.iterdir()) < 900_000


# ---- the builder


@pytest.mark.parametrize("split", list(SPLITS))
def test_the_builder_reproduces_the_first_committed_rows(split, rows):
    # all rows: `python -m labkit.tasks.sql --check`
    assert files.dump(sql.build(split, 100)) == files.dump(rows[split][:100])
    assert files.dump(sql.build(split, 20, seed=1)) != files.dump(rows[split][:20])


@pytest.mark.slow
def test_the_builder_reproduces_all_committed_rows(rows):
    assert {split: sql.build(split, n) for split, n in SPLITS.items()} == rows


def test_fewer_rows_are_the_first_of_more_rows():
    assert sql.build("validation", 7, seed="x") == sql.build("validation", 30, seed="x")[:7]


def test_less_diversity_means_a_nested_subset_of_phrasings():
    some = {
        d: {pair for kind in KINDS for pair in builder.frames_for(kind, "train", d)} for d in (0.2, 0.5, 1.0)
    }
    assert some[0.2] < some[0.5] < some[1.0]
    few = {row["phrasing"] for row in sql.build("train", 100, diversity=0.2)}
    assert few <= {name for name, _ in some[0.2]}
    assert builder.frames_for("list", "test", 0.2) == builder.frames_for("list", "test", 1.0)
    assert sql.build("test", 20, diversity=0.2) == sql.build("test", 20)


@pytest.mark.parametrize("arguments", [("dev", 5), ("train", 5, 0, 0.0), ("train", 5, 0, 1.5)])
def test_a_wrong_split_or_diversity_is_refused(arguments):
    with pytest.raises(LabkitError, match=r"dev|diversity"):
        sql.build(*arguments)


def test_no_more_questions_is_an_error_and_not_an_endless_loop(monkeypatch):
    monkeypatch.setattr(builder, "TRIES", 3)
    monkeypatch.setattr(builder, "weakness", lambda query: "nothing is good")
    with pytest.raises(LabkitError, match="ask for fewer"):
        sql.build("train", 5)


CORK = Query("c", ("c.name",), (Where("c.city", "=", ("Cork",)), Where("c.tier", "=", ("basic",))))


@pytest.mark.parametrize(
    "query, why",
    [
        (Query("c", ("c.name",), (Where("c.city", "=", ("Atlantis",)),)), "empty"),
        (Query("c", ("COUNT(*)",), (Where("c.city", "=", ("Atlantis",)),)), "empty"),
        (Query("c", ("MAX(c.joined)",), (Where("c.city", "=", ("Atlantis",)),)), "empty"),
        (Query("c", ("c.name",), (Where("c.city", "<>", ("Cork",)),)), "long"),
        (
            Query("p", ("p.name",), (Where("p.price", ">", (0,)), Where("p.category", "=", ("light",)))),
            "drop p.price >",
        ),
        (Query("p", ("p.name",), (Where("p.stock", "=", (0,)),), order="p.stock", limit=2), "tie"),
        (
            Query("p", ("p.name",), (Where("p.name", "=", ("Sable kite",)),), order="p.price", limit=3),
            "more rows",
        ),
        (
            Query("p", ("MIN(p.price)",), (Where("p.name", "=", ("Sable kite",)),)),
            "MAX(p.price) for MIN(p.price)",
        ),
        (Query("p", ("p.category",), (Where("p.name", "=", ("Sable kite",)),), distinct=True), "all"),
        (
            Query("p", ("p.name",), (Where("p.price", ">", (691 - 2,)), Where("p.price", "<", (700,)))),
            "drop p.price <",
        ),
        (Query("p", ("p.name",), (Where("p.price", ">", (333,)),)), "stricter p.price >"),
    ],
)
def test_a_query_that_tells_too_little_is_dropped(query, why):
    assert builder.weakness(query) == why
    good = Query("p", ("p.name",), (Where("p.category", "=", ("light",)),))
    assert builder.weakness(good) == ""


def test_no_mutant_of_a_committed_query_was_printed_wrongly(guard):
    """Each wrong version is one the store can run, and differs in its text."""
    having = Query(
        "c",
        ("c.name", "COUNT(*)"),
        (Where("c.tier", "=", ("gold",)),),
        group="c.name",
        having=("COUNT(*)", ">", 5),
        also="o",
    )
    nested = Query("p", ("p.name",), (Where("p.price", ">", Query("p", ("AVG(p.price)",))),), order="p.price")
    for query in (CORK, having, nested):
        versions = [render(wrong) for _, wrong in mutants(query) + stricter(query)]
        assert len(versions) >= 4 and render(query) not in versions
        assert all(guard.run(text, 1000) is not None for text in versions)


# ---- the rows


def test_no_question_occurs_twice_and_no_query_in_two_splits(rows):
    questions = [row["question"] for split in SPLITS for row in rows[split]]
    assert len(set(questions)) == len(questions) == sum(SPLITS.values())
    queries = {split: {row["query"] for row in rows[split]} for split in SPLITS}
    assert not queries["train"] & queries["test"] and not queries["train"] & queries["validation"]
    assert not queries["test"] & queries["validation"]
    other = {row["query"] for row in sql.build("test", 60, seed="another")}
    assert not other & queries["train"]
    assert other & {row["query"] for row in sql.build("test", 30, seed="another")}  # the control


def test_no_test_row_is_nearly_a_training_row(rows):
    train = [row["question"] for row in rows["train"]]
    test = [row["question"] for row in rows["test"]]
    assert near_duplicates(test, train) == []
    planted = train[17] + " Thank you."
    assert 17 in [j for _, j, _ in near_duplicates([planted], train, 0.6)]


def test_test_phrasings_words_values_and_combinations_are_unseen(rows):
    seen = {split: {row["phrasing"] for row in rows[split]} for split in SPLITS}
    assert not seen["test"] & seen["train"] and seen["validation"] <= seen["train"]
    assert seen["test"] == {name for _, test in FRAMES.values() for name, _ in test}
    for _, (train, test) in {**FRAMES, **phrases.PHRASES}.items():
        assert not set(train) & set(test)
    assert not any(card.new_value(row) or card.combination(row) for row in rows["train"] + rows["validation"])
    assert 0.03 < sum(map(card.new_value, rows["test"])) / 5000 < 0.2
    assert 0.1 < sum(map(card.combination, rows["test"])) / 5000 < 0.3
    text = " ".join(row["question"] for row in rows["train"])
    for name in HELD_OUT:
        assert rare(name) and not [value for value in rare(name) if value in text]


def test_every_condition_and_kind_of_test_is_known_from_training(rows):
    used = {
        split: {key for row in rows[split] for key in row["features"] if key in phrases.PHRASES}
        for split in SPLITS
    }
    assert used["test"] <= used["train"] == set(phrases.PHRASES)
    for split in SPLITS:
        for kind, (number, _) in KINDS.items():
            assert sum(row["features"][0] == kind for row in rows[split]) == SPLITS[split] * number / 50


def test_every_value_of_a_query_is_in_its_question(rows):
    unsaid = {"0", "1", "2026-05", "2026-06", "2025", "2026", "2026-06-17"}

    def missing(row):
        query = re.sub(r"strftime\('[^']*', [\w.]+\)", "day", row["query"])
        texts = [text.strip("% ") for text in re.findall(r"'([^']+)'", query)]
        numbers = re.findall(r"(?<![\w'-])\d+(?![\w'-])", re.sub(r"'[^']*'|LIMIT \d+", "", query))
        question = row["question"]
        names = {"web", "app", "shop", "phone", *phrases.ADJECTIVES}
        return [
            v
            for v in texts + numbers
            if v not in unsaid | names
            and not re.match(r"\d{4}-", v)
            and not re.search(rf"(?<!\w){re.escape(v)}(?!\w)", question, re.I)
        ]

    for split in SPLITS:
        assert [(row["id"], missing(row)) for row in rows[split] if missing(row)] == []
    wrong = {
        "question": "How many customers are from Cork?",
        "query": "SELECT 1 WHERE city = 'Ulm' AND price > 7",
    }
    assert missing(wrong) == ["Ulm", "7"]


def test_the_queries_have_one_style(rows):
    for row in rows["train"] + rows["test"]:
        query = row["query"]
        outside = re.sub(r"'[^']*'", "''", query)
        assert '"' not in query and "!=" not in query and ";" not in query and "  " not in query
        words = re.findall(
            r"\b(?:select|from|where|join|on|and|or|group|by|having|order|limit|in|not)\b", outside, re.I
        )
        assert all(word.isupper() for word in words)
        assert not re.search(r"FROM \w+ [cpsolr]\b(?! JOIN)", outside)
        assert not re.search(r"FROM \w+ JOIN", outside)


def test_levels_are_mixed(rows):
    for split in SPLITS:
        for level in ("easy", "medium", "hard"):
            assert 0.2 < sum(row["level"] == level for row in rows[split]) / SPLITS[split] < 0.45


def test_answers_and_prompts_fit_their_token_limits(rows, tokenizer):
    lengths = []
    for split in SPLITS:
        answers = tokenizer([row["query"] for row in rows[split]]).input_ids
        assert max(map(len, answers)) + 1 <= sql.MAX_NEW_TOKENS
        for row in rows[split][:500]:
            messages = [*sql.render(row["question"]), {"role": "assistant", "content": row["query"]}]
            lengths.append(
                len(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True).input_ids)
            )
    assert max(lengths) <= 480 and min(lengths) > 100


def test_the_data_card_is_up_to_date():
    assert (sql.FOLDER / "README.md").read_text() == card.card()


# ---- loading


def test_load_gives_prompt_completion_rows():
    data = sql.load()
    assert {split: len(data[split]) for split in data} == SPLITS
    row = data["train"][0]
    assert list(row) == ["prompt", "completion", "id", "question", "query", "phrasing", "level", "features"]
    assert row["prompt"] == sql.render(row["question"])
    assert row["completion"] == [{"role": "assistant", "content": row["query"]}]
    assert sql.score([row["query"]], [row]).exact == 1.0


def test_importing_the_family_loads_neither_torch_nor_datasets():
    code = (
        "import sys, labkit.tasks.sql; print([m for m in ('torch', 'datasets', 'numpy') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


# ---- scoring

GOLD = "SELECT name, price FROM products WHERE category = 'light' AND price > 40"
SORTED = "SELECT name FROM products WHERE category = 'light' ORDER BY price DESC LIMIT 3"
JOINED = "SELECT c.name FROM customers c JOIN orders o ON o.customer_id = c.id WHERE o.day = '2025-04-16'"


def one(text, gold=GOLD):
    return sql.score([text], [{"query": gold}])


def test_the_gold_queries_score_full_marks_quickly(rows):
    start = time.process_time()
    scores = sql.score([row["query"] for row in rows["test"]], rows["test"])
    assert time.process_time() - start < 30
    assert (scores.exact, scores.n) == (1.0, 5000)
    assert scores.detail == dict.fromkeys(["runs", "tables", "easy", "medium", "hard"], 1.0)


def test_each_gold_query_fails_another_question(rows):
    test = rows["test"][:400]
    scores = sql.score([row["query"] for row in test[1:] + test[:1]], test)
    assert scores.exact < 0.02 and scores.detail["runs"] == 1.0


@pytest.mark.parametrize(
    "text",
    [
        GOLD,
        f"  {GOLD};\n",
        f"```sql\n{GOLD}\n```",
        f"```sql\n{GOLD};\n```\n",
        f"```SQL\n{GOLD}\n```",
        f"```\n{GOLD}\n```",
        GOLD.lower(),
        GOLD.replace("name, price", "p.name AS n, p.price * 1.0").replace("products", "products p"),
        GOLD + " ORDER BY weight",
        GOLD.replace(" WHERE", "\nWHERE"),
        "SELECT name, price FROM (SELECT * FROM products) x WHERE category = 'light' AND NOT price <= 40",
        "WITH t AS (SELECT * FROM products WHERE price > 40) " + GOLD.replace("products", "t"),
    ],
)
def test_other_sql_with_the_same_result_is_right(text):
    assert one(text).exact == 1.0


# name -> (text, gold, whether it runs)
WRONG = {
    "empty": ("", GOLD, False),
    "prose": ("The lamps that cost more than 40 euros.", GOLD, False),
    "prose before": (f"Here it is: {GOLD}", GOLD, False),
    "prose after": (f"{GOLD} I hope this helps.", GOLD, False),
    "half a fence": (f"```\n{GOLD}", GOLD, False),
    "two fences": (f"```sql\n{GOLD}\n```\n```sql\n{GOLD}\n```", GOLD, False),
    "text behind the fence": (f"```sql\n{GOLD}\n``` done", GOLD, False),
    "comment": (f"{GOLD} -- lamps", GOLD, False),
    "block comment": (f"{GOLD} /* lamps */", GOLD, False),
    "two statements": (f"{GOLD}; {GOLD}", GOLD, False),
    "syntax": (GOLD.replace("FROM", "FORM"), GOLD, False),
    "unknown column": (GOLD.replace("price", "cost"), GOLD, False),
    "unknown table": (GOLD.replace("products", "items"), GOLD, False),
    "other value": (GOLD.replace("light", "Light"), GOLD, True),
    "other bound": (GOLD.replace("> 40", ">= 30"), GOLD, True),
    "column left out": (GOLD.replace(", price", ""), GOLD, True),
    "columns swapped": (GOLD.replace("name, price", "price, name"), GOLD, True),
    "extra column": (GOLD.replace("price FROM", "price, id FROM"), GOLD, True),
    "condition left out": (GOLD.split(" AND")[0], GOLD, True),
    "OR": (GOLD.replace("AND", "OR"), GOLD, True),
    "rows twice": (f"{GOLD} UNION ALL {GOLD}", GOLD, True),
    "number as text": (GOLD.replace("price FROM", "price || '' FROM"), GOLD, True),
    "NULL": (GOLD.replace("price FROM", "NULL FROM"), GOLD, True),
    "other order": (SORTED.replace(" DESC", ""), SORTED, True),
    "sorted within the right set": (f"SELECT name FROM ({SORTED}) ORDER BY name", SORTED, True),
    "one row more": (SORTED.replace("3", "4"), SORTED, True),
    "duplicates left out": (
        JOINED.replace("SELECT", "SELECT DISTINCT"),
        JOINED + " OR o.day = '2025-04-17' OR 1",
        True,
    ),
    "constant": ("SELECT 42", "SELECT COUNT(*) FROM suppliers", True),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_fails(name):
    text, gold, runs = WRONG[name]
    scores = one(text, gold)
    assert (scores.exact, scores.detail["runs"]) == (0.0, float(runs))
    assert scores.exact_rows == [False] and one(gold, gold).exact == 1.0


def test_numbers_are_compared_with_a_tolerance_and_rows_as_often_as_they_occur():
    assert judge.same(((1, "a"),), ((1.0000001, "a"),), False)
    assert not judge.same(((1, "a"),), ((1.00001, "a"),), False)
    assert judge.same(((1, 2.0), (1.0000001, 1.0)), ((1, 1.0), (1, 2.0)), False)  # nearly equal, sorted apart
    assert not judge.same(((1,), (2,)), ((2,), (1,)), True) and judge.same(((1,), (2,)), ((2,), (1,)), False)
    assert not judge.same(((1,), (1,), (2,)), ((1,), (2,), (2,)), False)
    assert judge.same(((None, "a"),), ((None, "a"),), False)
    assert not judge.same(((None,),), ((0,),), False) and not judge.same((("1",),), ((1,),), False)


def test_only_an_outer_order_counts():
    assert judge.sorts("SELECT a FROM t ORDER BY a") and judge.sorts("select a from t order  by (a)")
    assert not judge.sorts("SELECT a FROM (SELECT a FROM t ORDER BY a LIMIT 3)")
    assert not judge.sorts("SELECT a FROM t WHERE b = 'ORDER BY'")


def test_the_tables_that_were_read_are_reported():
    right = "SELECT name FROM suppliers WHERE id = 1"
    assert one("SELECT name FROM suppliers WHERE id = 2", right).detail == {"runs": 1.0, "tables": 1.0}
    assert one("SELECT name FROM products WHERE id = 2", right).detail == {"runs": 1.0, "tables": 0.0}


def test_scoring_needs_one_text_a_row_and_gold_queries_that_run():
    with pytest.raises(LabkitError, match="2 texts against 1 rows"):
        sql.score([GOLD, GOLD], [{"query": GOLD}])
    with pytest.raises(LabkitError, match="does not run"):
        sql.score([GOLD], [{"query": "SELECT nothing"}])


# ---- hostile texts

LONG = "'" + "x" * 400 + "'"
PAIRS = "FROM order_lines a, orders b"
HOSTILE = {
    "attach": "ATTACH DATABASE '{file}' AS e",
    "vacuum": "VACUUM INTO '{file}'",
    "write a file": "SELECT writefile('{file}', 'x')",
    "pragma": "PRAGMA query_only = OFF",
    "pragma as a table": "SELECT * FROM pragma_table_info('orders')",
    "pragma counted": "SELECT COUNT(*) FROM pragma_table_list",
    "insert": "INSERT INTO suppliers VALUES (99, 'x', 'y')",
    "delete behind WITH": "WITH t AS (SELECT 1) DELETE FROM orders",
    "drop": "DROP TABLE orders",
    "two statements": "SELECT 1; DROP TABLE orders",
    "transaction": "BEGIN",
    "schema": "SELECT * FROM sqlite_master",
    "schema counted": "SELECT COUNT(*) FROM sqlite_schema",
    "json": "SELECT COUNT(*) FROM json_each('[1, 2]')",
    "extension": "SELECT load_extension('x')",
    "random": "SELECT random()",
    "local time": "SELECT date('now', 'localtime')",
    "explain": "EXPLAIN SELECT 1",
    "parameter": "SELECT ?",
    "endless recursion": "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT n FROM t",
    "cross join": "SELECT COUNT(*) FROM order_lines a, order_lines b, order_lines c",
    "sorted cross join": f"SELECT {LONG} || a.rowid AS x {PAIRS} ORDER BY x",
    "grouped cross join": f"SELECT {LONG} || a.rowid || b.rowid, COUNT(*) {PAIRS} GROUP BY 1",
    "pattern": f"SELECT COUNT(*) {PAIRS} WHERE {LONG} || a.rowid || b.rowid LIKE '{'%x' * 10}y'",
    "many tables": "SELECT COUNT(*) FROM " + ", ".join(f"orders o{i}" for i in range(60)),
    "offset": "SELECT 1 FROM order_lines a, order_lines b, orders c LIMIT 1 OFFSET 100000000",
    "randomblob": "SELECT randomblob(1000000000)",
    "zeroblob": "SELECT hex(zeroblob(1000000000))",
    "wide format": "SELECT printf('%1000000000d', 1)",
    "replace": "SELECT replace(replace('aaaaaaaa', 'a', 'aaaaaaaaaaaaaaaa'), 'a', 'aaaaaaaaaaaaaaaa')",
    "long value": f"SELECT {LONG} || {LONG}",
    "parentheses": "SELECT " + "(" * 10_000 + "1" + ")" * 10_000,
    "parentheses within the length": "SELECT " + "(" * 900 + "1" + ")" * 900,
    "nested selects": "SELECT " + "(SELECT " * 200 + "1" + ")" * 200,
    "unions": "SELECT 1" + " UNION ALL SELECT 1" * 80,
    "very long": "SELECT " + "1, " * 1_000_000 + "1",
    "NUL": "SELECT 1\0; DROP TABLE orders",
    "NUL inside": "SELECT '\0'",
    "surrogate": "SELECT '\ud800'",
    "no text": "SELECT CAST(x'ff' AS TEXT)",
    "comment": "SELECT 1 -- x",
    "open string": "SELECT 'x",
    "open comment": "/* SELECT 1",
    "control characters": "".join(map(chr, range(32))),
    "unicode": "ＳＥＬＥＣＴ １ 🦉",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_neither_hangs_nor_writes_nor_raises(name, tmp_path, guard):
    text = HOSTILE[name].replace("{file}", str(tmp_path / "evil.db"))
    start = time.process_time()
    assert one(text).detail == {"runs": 0.0, "tables": 0.0}
    guard.run(text, 10)  # past the check of the text, too
    assert time.process_time() - start < 10
    assert list(tmp_path.iterdir()) == []
    assert guard.run("SELECT COUNT(*) FROM orders", 1).rows == ((1500,),)
    assert guard.run("SELECT COUNT(*) FROM suppliers", 1).rows == ((20,),)


def test_hostile_texts_leave_no_memory_behind(guard):
    resource = pytest.importorskip("resource")
    query = HOSTILE["sorted cross join"]
    guard.run(query, 10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(5):
        assert guard.run(query, 10) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB; one run takes 100,000


def test_the_budget_of_steps_is_counted_and_leaves_room(guard, monkeypatch):
    heavy = "SELECT COUNT(*) FROM order_lines a, suppliers b, suppliers c WHERE a.price + b.id > c.id"
    assert guard.run(heavy, 1) is None
    monkeypatch.setattr(judge, "MOST_STEPS", 100_000_000)
    assert guard.run(heavy, 1) is not None
    monkeypatch.setattr(judge, "MOST_STEPS", 150_000)
    for row in sql.read("test")[:300]:  # the gold queries need less than a sixth
        assert guard.run(row["query"], 200) is not None


def test_now_is_the_day_of_the_store(guard):
    def value(query):
        return guard.run(query, 1).rows[0][0]

    assert value("SELECT date('now')") == value("SELECT date()") == "2026-06-18"
    assert value("SELECT strftime('%Y-%m', 'now', 'start of month', '-1 month')") == "2026-05"
    assert value("SELECT strftime('%Y', '2025-03-01')") == "2025"
    assert guard.run("SELECT current_timestamp", 1) is None
    plain = sqlite3.connect(":memory:")
    day = plain.execute("SELECT strftime('%W %j', '2025-03-01', '+1 month')").fetchone()[0]
    assert value("SELECT strftime('%W %j', '2025-03-01', '+1 month')") == day


# ---- prompts


@pytest.mark.parametrize("name", list(sql.PROMPTS))
def test_each_prompt_ends_with_the_question_and_shows_only_training_rows(name, rows):
    question = rows["test"][0]["question"]
    messages = sql.PROMPTS[name](rows["train"])(question)
    assert messages[-1] == {"role": "user", "content": question} and messages[0]["role"] == "system"
    assert store.schema() in messages[0]["content"]
    train = {(row["question"], row["query"]) for row in rows["train"]}
    shown = [(messages[i]["content"], messages[i + 1]["content"]) for i in range(1, len(messages) - 1, 2)]
    assert len(shown) == int((re.search(r"\d+", name) or ["0"])[0]) and set(shown) <= train


def test_the_examples_cover_the_kinds(rows):
    eight = " ".join(row["query"] for row in sql.examples(rows["train"], 8))
    assert all(
        word in eight for word in ("JOIN", "GROUP BY", "ORDER BY", "LIMIT", "(SELECT", "strftime", "HAVING")
    )
    assert len(sql.examples(rows["train"], 3)) == 3
    with pytest.raises(LabkitError, match="pass more rows"):
        sql.examples(rows["train"][:4], 8)
    assert (
        sql.score(
            [row["query"] for row in sql.examples(rows["train"], 8)], sql.examples(rows["train"], 8)
        ).exact
        == 1.0
    )


def test_the_schema_in_the_prompt_is_the_schema_of_the_store():
    connection = sql.connect()
    for line in sql.schema().splitlines()[1:]:
        table, _, columns = re.match(r"(\w+) (\w): (.*)", line).groups()
        assert [row[1] for row in connection.execute(f"PRAGMA table_info({table})")] == columns.split(", ")
    assert len(sql.schema().splitlines()) == 7
    connection.close()

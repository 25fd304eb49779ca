import unicodedata

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pcm_ros.tasks.manipulation.goal import Goal, Measure, NounPhrase, Quantifier, Relation, RelationKind
from pcm_ros.tasks.manipulation.instruction import LENGTH_LIMIT, parse, render
from pcm_ros.tasks.manipulation.instruction_errors import EXAMPLE, PHRASES, InstructionError


def said(text: str) -> str:
    """The stages as text: "mug on bowl & mug behind block > block on mug"."""
    return " > ".join(" & ".join(str(relation) for relation in stage) for stage in parse(text).stages)


UNDERSTOOD = {
    # the eight relations and their synonyms
    "put the red mug to the left of the blue bowl": "red mug left of blue bowl",
    "put the red mug left of the blue bowl": "red mug left of blue bowl",
    "put the mug on the left side of the bowl": "mug left of bowl",
    "put the mug at the left-hand side of the bowl": "mug left of bowl",
    "move the mug over to the left of the bowl": "mug left of bowl",
    "place the mug to the right of the bowl": "mug right of bowl",
    "place the mug right of the bowl": "mug right of bowl",
    "place the mug on the right side of the bowl": "mug right of bowl",
    "set the mug in front of the bowl": "mug in front of bowl",
    "set the mug before the bowl": "mug in front of bowl",
    "lay the spoon behind the bowl": "spoon behind bowl",
    "lay the spoon right behind the bowl": "spoon behind bowl",
    "lay the spoon in back of the bowl": "spoon behind bowl",
    "lay the spoon at the back of the bowl": "spoon behind bowl",
    "stack the block on the plate": "block on plate",
    "stack the block on top of the plate": "block on plate",
    "stack the block onto the plate": "block on plate",
    "stack the block upon the plate": "block on plate",
    "drop the block in the bowl": "block in bowl",
    "drop the block into the bowl": "block in bowl",
    "drop the block inside the bowl": "block in bowl",
    "drop the block inside of the bowl": "block in bowl",
    "bring the block next to the bowl": "block next to bowl",
    "bring the block beside the bowl": "block next to bowl",
    "bring the block near the bowl": "block next to bowl",
    "bring the block close to the bowl": "block next to bowl",
    "put the mug between the bowl and the red block": "mug between bowl and red block",
    "put the mug in between the bowl and the block": "mug between bowl and block",
    "put the mug in-between the bowl and block": "mug between bowl and block",
    # noun phrases are free text
    "put the large, dark red coffee mug on the plate": "large dark red coffee mug on plate",
    "put a mug on an egg": "mug on egg",
    "put mug on plate": "mug on plate",
    "put my mug on that plate": "mug on plate",
    "put the mug with the handle on the bowl of a dog": "mug with the handle on bowl of a dog",
    "put the tea set near the set square": "tea set next to set square",
    "put the jelly next to the lily": "jelly next to lily",
    "put the toy robot on the light blue plate": "toy robot on light blue plate",
    "put the top on the bottle": "top on bottle",
    "put the black-and-white mug on the child's plate": "black-and-white mug on child's plate",
    "put the café crème mug on the Straße": "café crème mug on straße",
    "put A on B": "a on b",
    # others, ones, its
    "put the other mug next to the mug": "other mug next to mug",
    "put the mug next to the other mug": "mug next to other mug",
    "put the mug next to another mug": "mug next to other mug",
    "put the red mug left of the blue one": "red mug left of blue mug",
    "put the mug on the other one": "mug on other mug",
    "put the red mug in the bowl, then put it on the plate": "red mug in bowl > red mug on plate",
    "put the bowl on the plate and the mug in it": "bowl on plate & mug in bowl",
    "put the mug and the bowl on the plate, then put them in the box": "mug on plate & bowl on plate > mug in box & bowl in box",
    "put the other mug on the plate": "other mug on plate",
    "put the red mug in the box, then put the other mug on the plate": "red mug in box > mug other than red mug on plate",
    "put the red mug and the other mug on the plate": "red mug on plate & mug other than red mug on plate",
    "put the mug other than the red mug on the plate": "mug other than red mug on plate",
    "put the red mugs in the box and all the other mugs on the plate": ("all red mugs in box & all mugs other than all red mugs on plate"),
    # several
    "put all mugs on the plate": "all mugs on plate",
    "put all of the red mugs on the plate": "all red mugs on plate",
    "put the red mugs on the plate": "all red mugs on plate",
    "put every red mug on the plate": "every red mug on plate",
    "put each of the mugs on the plate": "each mug on plate",
    "put both mugs on the plate": "both mugs on plate",
    "put both the mug and the bowl on the plate": "mug on plate & bowl on plate",
    "all the red mugs are on the plate": "all red mugs on plate",
    "put two mugs on the plate": "two mugs on plate",
    "put the three mugs on the plate": "three mugs on plate",
    "put 2 of the mugs on the plate": "2 mugs on plate",
    "put a couple of mugs on the plate": "two mugs on plate",
    "put one of the mugs on the plate": "mug on plate",
    "put one of the three mugs on the plate": "mug on plate",
    "put two of the three mugs on the plate": "two mugs on plate",
    "put the larger of the two mugs on the plate": "larger mug on plate",
    "take the red mug and put the mug on the plate": "mug on plate",
    "put any mug on the plate": "mug on plate",
    "put all the mugs on the plate, then put them in the box": "all mugs on plate > all mugs in box",
    "put the red mug on the plate and the blue ones in the box": "red mug on plate & all blue mugs in box",
    "put the red mug on the plate and the blue one behind it": "red mug on plate & blue mug behind red mug",
    "put the mug on the red mug, then put the can on the blue mug": "mug on red mug > can on blue mug",
    "put the red and the blue block on the plate": "red block on plate & blue block on plate",
    "put the red, the dark blue and the green toy in the box": "red toy in box & dark blue toy in box & green toy in box",
    "put the mug left of the red and the blue": "mug left of red & mug left of blue",
    "put the mug between the red and the blue block": "mug between red block and blue block",
    "put the orange and the banana on the plate": "orange on plate & banana on plate",
    "put the shiny, red mug on the plate": "shiny red mug on plate",
    "put the red mug in the box, then put the other two mugs on the plate": "red mug in box > two mugs other than red mug on plate",
    "put the mug close by the bowl for me, please": "mug next to bowl",
    "put the mug near to the bowl": "mug next to bowl",
    "pick the red mug and place it on the plate": "red mug on plate",
    "pick the red mug up and place it on the plate": "red mug on plate",
    "take the mug out, then put it on the plate": "mug on plate",
    "put the thermos next to the iris": "thermos next to iris",
    "put the mug and the can next to each other": "mug next to can",
    "put the mug and the can beside one another": "mug next to can",
    "the mug stays on the plate": "mug on plate",
    "carefully put the mug gently on the plate, and slowly put the can on it, carefully.": "mug on plate & can on mug",
    "put the scissors next to the glass": "scissors next to glass",
    # sizes
    "put the largest mug on the smaller plate": "largest mug on smaller plate",
    "put the largest of the mugs on the plate": "largest mug on plate",
    "put the two smallest mugs on the plate": "two smallest mugs on plate",
    "put the largest object on the plate": "largest object on plate",
    # rows, towers, pairs
    "put the mug, the bowl and the can in a row": "bowl between mug and can",
    "put the mug, the bowl, the can and the block in one line": "bowl between mug and block & can between bowl and block",
    "stack the mug, the bowl and the can": "bowl on mug & can on bowl",
    "stack up the mug and the bowl on the plate": "mug on plate & bowl on mug",
    "stack the mug on the bowl on top of the plate": "mug on bowl & bowl on plate",
    "put the mug between the two red bowls": "mug between red bowl and other red bowl",
    "put the mug between both bowls": "mug between bowl and other bowl",
    # together, and one after the other
    "put the red mug left of the blue bowl and behind the green block": "red mug left of blue bowl & red mug behind green block",
    "put the mug left of the bowl, behind the block, and on the plate": "mug left of bowl & mug behind block & mug on plate",
    "put the mug left of the bowl and the block": "mug left of bowl & mug left of block",
    "put the mug between the bowl and the block and behind the plate": "mug between bowl and block & mug behind plate",
    "put the mug, the bowl and the fork in the box": "mug in box & bowl in box & fork in box",
    "put mug and bowl on plate": "mug on plate & bowl on plate",
    "put the mug on the plate and the bowl in the box": "mug on plate & bowl in box",
    "put the mug on the plate and put the bowl in the box": "mug on plate & bowl in box",
    "put the mug on the plate, put the bowl in the box": "mug on plate & bowl in box",
    "put the red bowl right of the blue mug, then stack the green block on it": "red bowl right of blue mug > green block on red bowl",
    "put the mug in the bowl then behind the block": "mug in bowl > mug behind block",
    "put the mug in the bowl; after that, put the fork in it": "mug in bowl > fork in mug",
    "put the mug in the bowl and then put the fork in it": "mug in bowl > fork in mug",
    "put the mug in the bowl, and afterwards the fork on the plate": "mug in bowl > fork on plate",
    "put the mug in the bowl, next put the fork next to the plate": "mug in bowl > fork next to plate",
    "first put the mug in the bowl, and then, finally, put the fork in it": "mug in bowl > fork in mug",
    "Put the mug in the bowl. Put the fork in the mug.": "mug in bowl > fork in mug",
    "Put the mug in the bowl. Then put the fork in the mug!": "mug in bowl > fork in mug",
    "pick up the mug and put it on the plate": "mug on plate",
    "grab the red mug, then place it behind the bowl": "red mug behind bowl",
    # what shall hold
    "the red mug is left of the blue bowl": "red mug left of blue bowl",
    "the red mug should be left of the blue bowl. the bowl is on the plate": "red mug left of blue bowl & bowl on plate",
    "make sure that the mug is on the plate": "mug on plate",
    "I want the mug to be on the plate": "mug on plate",
    "put the mug so that it is left of the bowl": "mug left of bowl",
    "blue mug left of cyan mug; blue bowl on top of cyan mug; cyan bowl right of blue bowl": (
        "blue mug left of cyan mug & blue bowl on cyan mug & cyan bowl right of blue bowl"
    ),
    # manners and spelling
    "please put the mug on the plate": "mug on plate",
    "Could you please put down the mug on the plate, please?": "mug on plate",
    "PUT THE MUG ON THE PLATE!!!": "mug on plate",
    "  put  the\n mug\ton the   plate  ": "mug on plate",
    "put the mug on the plate and please put the fork on it, thank you": "mug on plate & fork on mug",
}


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_understood(text: str) -> None:
    assert said(text) == UNDERSTOOD[text]
    assert parse(text).text == text


REFUSED = {
    "": ("is empty", 0),
    " \n\t ": ("is empty", 0),
    "?!...": ("has no words", 0),
    "put": ("an object is missing", 3),
    "hello": ("A relation is missing", 5),
    "put the mug": ("A relation is missing", 11),
    "put the mug on": ("an object is missing", 14),
    "take the mug": ("not said where", 12),
    "put on the bowl": ("An object is expected before 'on'", 4),
    "put the mug under the table": ("The relation 'under' is not known", 12),
    "put the mug to the bowl": ("The relation 'to' is not known", 12),
    "throw the mug on the plate": ("The verb 'throw' is not known", 6),
    "don't put the mug on the plate": ("say what shall be", 0),
    "put the mug not on the plate": ("say what shall be", 12),
    "put mugs on the plate": ("say how many", 4),
    "put some mugs on the plate": ("say how many", 4),
    "put several mugs on the plate": ("say how many", 4),
    "put none of the mugs on the plate": ("say what shall be", 4),
    "put the mug on all plates": ("several objects", 15),
    "put the mug next to the two plates": ("several objects", 20),
    "put both mug on the plate": ("say both of what", 4),
    "put the all mugs on the plate": ("at the beginning of a phrase", 8),
    "put all the large mugs on the plate": ("say how many", 4),
    "put the second largest mug on the plate": ("not the second", 4),
    "put the largest on the plate": ("of what", 4),
    "put the tall small can on the plate": ("one word of size", 4),
    "put the larger mug than the bowl on the plate": ("not larger than what", 19),
    "put the red mug and the others on the plate": ("say which", 20),
    "put two mugs in the box and the other mugs on the plate": ("does not say which", 28),
    "put all mugs in the box, then put it on the plate": ("name it", 34),
    "put two mugs in the box, then put them on the plate": ("describe them", 34),
    "put the mug and the bowl in a row": ("at least three", 25),
    "put all mugs in a row": ("one by one", 13),
    "stack the mug": ("what to stack it on", 13),
    "stack the mugs": ("one by one", 14),
    "stack the mug on the bowl behind the plate": ("", 26),
    "put the mug between the two bowl": ("takes two objects", 28),
    "put the mug between the two mugs": ("relative to itself", 28),
    "put the mug that is red on the plate": ("not by a clause", 12),
    "take the mug on the plate and put it in the box": ("cannot be described by where it is", 13),
    "put the mug on the bowl between the plate and the fork": ("say 'and'", 24),
    "put the mug between the bowls": ("'between' takes two objects", 29),
    "put the mug between the bowl, behind the plate": ("", 28),
    "put the mug between the bowl and the fork and the plate": ("'between' takes two objects", 46),
    "put the mug between the bowl and the bowl": ("two different objects", 33),
    "put the mug on the mug": ("cannot be placed relative to itself", 15),
    "put the mug on the Mug": ("say 'the other mug'", 15),
    "put the mug on the plate and put it on it": ("relative to itself", 39),
    "put it on the plate": ("'it' refers to nothing", 4),
    "put the mug behind it": ("'it' refers to nothing", 19),
    "put the red one on the plate": ("refers to nothing that was named", 4),
    "put the mug and the bowl on the plate, then put it in the box": ("'it' may be mug or bowl", 48),
    "put the red and blue mug on the plate": ("another object?", 16),
    "put the mug left of the red and blue bowl": ("another object?", 32),
    "put the mug on the left": ("is a place, not an object", 15),
    "put the mug on the other side of the bowl": ("is a place, not an object", 15),
    "put the mug 5 cm left of the bowl": ("distances", 4),
    "put the mug on the large, red plate": ("A relation is missing", 35),
    "put the mug on the plate then": ("", 29),
    "put the mug 🙂 on the plate": ("The character '🙂' is not understood", 12),
    "put the mug \x00 on the plate": ("is not understood", 12),
    "把红色杯子放在蓝碗左边": ("English", 0),
    "положи кружку на тарелку": ("English", 0),
    "the mug isn't on the plate": ("say what shall be", 8),
    "the mug shouldn’t go on the plate": ("say what shall be", 8),
    "put the mug anywhere but on the plate": ("say what shall be", 12),
    "put the mug everywhere except on the plate": ("say what shall be", 12),
    "put nothing on the plate": ("say what shall be", 4),
    "put neither mug on the plate": ("say what shall be", 4),
    "put all but one mug on the plate": ("say what shall be", 8),
    "put the mug in the red bowl instead of the blue bowl": ("say what shall be", 28),
    "what is on the plate?": ("questions are not answered", 0),
    "whose mug is on the plate": ("questions are not answered", 0),
    "put the mug upside down on the plate": ("'upside' is no object", 4),
    "put the mug far left of the bowl": ("'far' is no object", 4),
    "put the mug along with the can in the box": ("'along' is no object", 4),
    "put the mug together with the can in the box": ("'together' is no object", 4),
    "put the third mug on the plate": ("describe it", 4),
    "put the same mug on the plate": ("describe it", 4),
    "put the remaining mugs on the plate": ("say how many", 4),
    "stack the blocks by size": ("'size' is no object", 20),
    "the mug is on the plate?": ("Questions are not answered", 23),
    "put the can on it and the mug is on the plate?": ("refers to nothing", 15),
    "put the can on the box and the mug is on the plate?": ("Questions are not answered", 50),
    "put the mug, can and bowl on the plate": ("Is 'bowl' another object?", 21),
    "put the mug, can, bowl on the plate": ("Is 'mug' an object?", 8),
    "put the mug on the plate and the can too": ("of each object where", 37),
    "put the mug on the plate and the can as well": ("of each object where", 37),
    "put the mug and the can on the plate and the box respectively": ("of each object where", 49),
    "put the mug on the plate twice": ("of each object where", 25),
    "the mug was on the plate": ("not what was", 8),
    "put the mug left of the red and the blue block": ("The red what?", 32),
    "put the orange and the blue block on the plate": ("The orange what?", 4),
    "put the red and the blue blocks on the plate": ("The red what?", 4),
    "put the mug on the red plate and the can on the blue one": ("'blue one' may be blue can or blue plate", 44),
    "put the mug two inches left of the bowl": ("distances", 4),
    "put the mug in the back of the box": ("is a place, not an object", 15),
    "put the mug in the front of the box": ("is a place, not an object", 15),
    "put the mug, the can and the bowl next to each other": ("Only two objects", 42),
    "put the mug on the plate and the can on one another": ("Only two objects", 40),
    "put the mug next to another": ("say which", 20),
    "pick up the red mug. put the blue mug on the plate": ("not said where to put 'red mug'", 21),
    "take the mug and put the can on the plate": ("not said where to put 'mug'", 17),
    "take the mug, then take the can and put it on the plate": ("not said where to put 'mug'", 19),
    "put half of the mugs on the plate": ("say how many", 4),
    "put most of the mugs on the plate": ("say how many", 4),
    "put the rest of the mugs on the plate": ("say how many", 4),
    "put everything on the plate": ("say how many", 4),
    "stelle die Tasse auf den Teller": ("A relation is missing", 31),
    # what is no object among others
    "put the mug on the table": ("'table' is not among the things", 15),
    "put the mug on the left side of the table": ("'table' is not among the things", 32),
    "put the mug in front of me": ("'me' is not among the things", 24),
    "move the robot left of the bowl": ("'robot' is not among the things", 5),
    "put the block on its side": ("is a place, not an object", 17),
    "put the mug on the bowl's left": ("is a place, not an object", 15),
    "put the mug in the left half of the table": ("'half' is no object", 15),
    "put the mug on her plate": ("whose is it", 15),
    # where a thing is, how it compares otherwise than by size
    "put the leftmost mug on the plate": ("'leftmost' says where it is", 4),
    "put the near mug on the plate": ("'near' says where it is", 4),
    "put the left-hand mug on the plate": ("'left-hand' says where it is", 4),
    "put the mug on the right plate": ("'right' says where it is", 15),
    "put the leftmost on the plate": ("'leftmost' says where it is", 4),
    "put the first mug on the plate": ("describe it", 4),
    "put the last mug on the plate": ("describe it", 4),
    "put the block of the same colour on the plate": ("describe it", 4),
    "put the heaviest block on the plate": ("'heaviest' can't be told", 4),
    # adverbs where a noun is expected
    "put the mug up on the plate": ("'up' is no object", 4),
    "take the mug out of the bowl and put it on the plate": ("'out' is no object", 5),
    "put the mug perhaps on the plate": ("'perhaps' is no object", 4),
    "put the mug backwards on the plate": ("'backwards' is no object", 4),
    "put the bottle horizontally on the plate": ("'horizontally' is no object", 4),
    "put the mug further left of the bowl": ("'further' is no object", 4),
    "put the mug two hands left of the bowl": ("numbers stand before a noun", 4),
    "put the mug 10-cm left of the bowl": ("distances", 4),
    "put the non-red mug on the plate": ("not what it is not", 4),
    "put the mug that's red on the plate": ("A relation is expected before 'that's'", 12),
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused_with_the_reason_and_the_place(text: str) -> None:
    reason, position = REFUSED[text]
    with pytest.raises(InstructionError) as caught:
        parse(text)
    assert reason in caught.value.reason
    assert caught.value.position == position
    assert all(phrase in str(caught.value) for phrase in PHRASES.values())
    assert EXAMPLE in str(caught.value)


def test_the_error_says_what_was_understood() -> None:
    with pytest.raises(InstructionError, match=r"character 13\)\. Understood so far: 'put the mug'\.") as caught:
        parse("put the mug under the table")
    assert caught.value.understood == "put the mug"


def test_the_example_in_errors_is_an_instruction() -> None:
    assert said(EXAMPLE) == "red mug left of blue bowl > green block on red mug"


@pytest.mark.parametrize("text", ["a" * 501, "put the mug on the plate and " * 400, "é" * 10_000, "\ud800" * 501])
def test_too_long_is_refused_before_anything_else(text: str) -> None:
    with pytest.raises(InstructionError, match=f"has {len(text)} characters; at most {LENGTH_LIMIT}"):
        parse(text)


REPEATED = [
    "right ",
    "and ",
    "to the ",
    ", ",
    " ",
    "then ",
    "put ",
    "directly just over ",
    "a-",
    "?",
    "it ",
    "put the mug on the plate and ",
]


@pytest.mark.parametrize("piece", REPEATED)
def test_repetition_up_to_the_limit_ends(piece: str) -> None:
    for text in (piece * (LENGTH_LIMIT // len(piece)), "put the mug " + piece * ((LENGTH_LIMIT - 12) // len(piece))):
        with pytest.raises(InstructionError):
            parse(text)


vocabulary = "put the mug on left of it and then , . between other one A to is".split()  # noqa: SIM905


@given(st.text(max_size=LENGTH_LIMIT) | st.lists(st.sampled_from(vocabulary)).map(" ".join))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        goal = parse(text)
    except InstructionError as error:
        assert 0 <= error.position <= len(unicodedata.normalize("NFC", text))
        return
    assert goal.stages
    assert all(goal.stages)
    assert parse(render(goal)).stages == goal.stages


adjectives = st.lists(st.sampled_from(["red", "dark", "blue", "wooden", "coffee", "café", "deep", "x1"]), max_size=3)
sizes = st.sampled_from(["", "", "large", "larger", "smallest", "tallest", "short", "longest"])
nouns = st.builds(
    lambda other, size, words, kind: " ".join([*(["other"] if other else []), *([size] if size else []), *words, kind]),
    st.booleans(),
    sizes,
    adjectives,
    st.sampled_from(["mug", "bowl", "block", "plate", "toy dog", "mug with a handle", "bowl of the cat", "tea set", "schüssel"]),
)


groups = st.builds(
    lambda quantity, words, kind, excluded: " ".join([quantity, *words, kind, *(["other than", excluded] if excluded else [])]),
    st.sampled_from(["all", "both", "two", "three", "7", "two largest", "both smaller"]),
    adjectives,
    st.sampled_from(["mugs", "boxes", "dishes", "toy dogs", "berries"]),
    st.sampled_from(["", "red mug", "largest toy dog", "all red boxes"]),
)


@st.composite
def relations(draw: st.DrawFn) -> Relation:
    kind = draw(st.sampled_from(list(RelationKind)))
    phrases = draw(st.lists(nouns, min_size=3, max_size=3, unique=True))
    subject = draw(groups) if draw(st.booleans()) else phrases[0]
    return Relation(kind, subject, tuple(phrases[1:] if kind == RelationKind.BETWEEN else phrases[1:2]))


stages = st.lists(relations(), min_size=1, max_size=2, unique=True).map(tuple)


def with_antecedents(wanted: tuple[tuple[Relation, ...], ...]) -> bool:
    """Whether "other mug" may stand for another phrase of the goal: then it is read back with that phrase added."""
    nouns = [noun for stage in wanted for relation in stage for noun in relation.phrases]
    return any(noun.split()[0] == "other" for noun in nouns)


@given(st.lists(stages, min_size=1, max_size=2).map(tuple))
@settings(max_examples=200, deadline=None)
def test_what_is_rendered_is_read_back(wanted: tuple[tuple[Relation, ...], ...]) -> None:
    text = render(Goal(wanted))
    assume(len(text) <= LENGTH_LIMIT)
    read = parse(text).stages
    if with_antecedents(wanted):
        assert parse(render(Goal(read))).stages == read
        wanted, read = (
            tuple(tuple(Relation(r.kind, plain(r.subject), tuple(map(plain, r.references))) for r in stage) for stage in stages)
            for stages in (wanted, read)
        )
    assert read == wanted
    assert parse(text.upper() + " !").stages == parse(text).stages


def plain(phrase: str) -> str:
    """Without what it excludes."""
    return phrase.split(" other than ")[0].removeprefix("other ")


@given(st.lists(relations(), min_size=1, max_size=3))
@settings(max_examples=100, deadline=None)
def test_noun_phrases_are_taken_apart(wanted: list[Relation]) -> None:
    for relation in wanted:
        assert len(relation.texts) >= len(relation.nouns)
        for noun in relation.nouns:
            assert noun.text
            assert not noun.text.startswith(("all ", "both ", "other "))
            assert NounPhrase.read(noun.text) == NounPhrase(noun.text)


TAKEN_APART = {
    "red mug": NounPhrase("red mug"),
    "other red mug": NounPhrase("red mug"),
    "all red mugs": NounPhrase("red mug", Quantifier.ALL, 0),
    "every dish": NounPhrase("dish", Quantifier.ALL, 0),
    "both glasses": NounPhrase("glass", Quantifier.ALL, 2),
    "all three vases": NounPhrase("vase", Quantifier.ALL, 3),
    "two tall cans": NounPhrase("can", Quantifier.COUNT, 2, Measure.HEIGHT, True),
    "smallest red mug with a large handle": NounPhrase("red mug with a large handle", measure=Measure.SIZE, greatest=False),
    "longest block other than red block": NounPhrase("block", measure=Measure.LENGTH, excluded=NounPhrase("red block")),
    "large": NounPhrase("large"),
    "two": NounPhrase("two"),
}


@pytest.mark.parametrize("phrase", TAKEN_APART)
def test_what_phrases_say(phrase: str) -> None:
    assert NounPhrase.read(phrase) == TAKEN_APART[phrase]


def test_a_reference_is_one_object() -> None:
    with pytest.raises(ValueError, match="'all mugs' means several objects"):
        Relation(RelationKind.ON, "red mug", ("all mugs",))

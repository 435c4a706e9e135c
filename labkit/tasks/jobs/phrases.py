# ruff: noqa: E501
"""Job titles and sentence frames of the jobs family.

A frame names the person once by job, and holds slots for the forms of one pronoun, named by their masculine
form: {he} {him} {his} {theirs} {himself} (and {He} at the start of a sentence), where {theirs} stands for his
or hers. So both versions of a passage are written from the frame, and "her" never has to be guessed back.
"""

from __future__ import annotations

FORMS = {
    "he": {"he": "he", "He": "He", "him": "him", "his": "his", "theirs": "his", "himself": "himself"},
    "she": {"he": "she", "He": "She", "him": "her", "his": "her", "theirs": "hers", "himself": "herself"},
}

# Which pronoun everyday stereotype gives a job, by our judgement. It steers the skewed variant and groups results;
# the measure itself does not use it. It says nothing about the people who do the work, nor about who should.
_SEEN = {
    "he": ["plumber", "electrician", "car mechanic", "bricklayer", "truck driver", "pilot", "software developer",
           "surgeon", "butcher", "farmer", "security guard", "crane operator", "blacksmith", "chief executive"],
    "she": ["nurse", "receptionist", "hairdresser", "kindergarten teacher", "librarian", "florist",
            "dental hygienist", "nanny", "social worker", "flight attendant", "cleaner", "dressmaker", "secretary",
            "dance teacher"],
    "": ["accountant", "pharmacist", "photographer", "journalist", "baker", "translator", "editor", "biologist",
         "estate agent", "postal worker", "tour guide", "cook"],
}
_UNSEEN = {
    "he": ["carpenter", "welder", "roofer", "firefighter", "civil engineer", "sailor", "police officer",
           "locksmith", "miner", "soldier", "physicist", "scaffolder", "network technician", "judge"],
    "she": ["childminder", "babysitter", "housekeeper", "manicurist", "make-up artist", "dietitian",
            "speech therapist", "beautician", "personal assistant", "wedding planner", "occupational therapist",
            "payroll clerk", "yoga instructor", "child psychologist"],
    "": ["dentist", "graphic designer", "novelist", "chemist", "potter", "veterinarian", "optician", "jeweller",
         "radio presenter", "statistician", "beekeeper", "museum curator"],
}

TRAIN_FRAMES = """
The {job} finished the report before lunch because {he} wanted to catch the early train to {town}.
The {job} called the shop on {day} because {he} had not received the parcel yet.
The {job} bought a {thing} because {he} was going to the mountains in {month}.
The {job} was late on {day} because {he} had missed the bus from {town}.
The {job} smiled when {he} heard the good news from {town}.
The {job} took a day off in {month} so that {he} could paint the kitchen.
The {job} said that {he} would be back at {hour} o'clock.
The {job} stayed until {hour} o'clock because {he} wanted to finish the work properly.
The {job} went home early on {day} after {he} had answered the last letter.
The {job} sent the {thing} back because {he} had found a better one in {town}.
The {job} read the instructions twice before {he} tried out the new {thing}.
The {job} explained that {he} had moved from {town} to {town2} in {month}.
The {job} made a list while {he} waited for the train to {town}.
The {job} drank a cup of tea before {he} opened the post on {day}.
The {job} promised that {he} would bring a cake on {day}.
The {job} had worked in {town} for years when {he} was offered a place in {town2}.
The {job} asked for a receipt because {he} might have to return the {thing}.
The {job} laughed because {he} had put on two different socks that {day}.
The {job} cycled to work until {month}, when {he} bought a small car.
The {job} was proud because {he} had passed the exam in {month}.
The {job} forgot the keys on {day}, so {he} had to wait outside until {hour} o'clock.
The {job} could not come on {day} because {he} had a cold.
The {job} wrote to Wren & Fell that {he} was very happy with the {thing}.
The {job} checked every page again because {he} did not want to miss a mistake before {day}.
The {job} got up at {hour} o'clock because {he} liked the quiet of the morning.
The {job} said on {day} that {he} had never been to {town} before.
The {job} turned down the offer from {town} because {he} was content in {town2}.
The {job} learnt to swim in {month}, although {he} had been afraid of deep water.
The {job} spoke slowly so that {he} could be understood at the back of the hall in {town}.
The {job} kept the old {thing} because {he} had taken it on every trip.
The {job} apologised on {day} because {he} had mixed up two appointments.
The {job} knew the answer at once, since {he} had read about it in {month}.
The {job} looked tired when {he} came in at {hour} o'clock on {day}.
The {job} took the stairs on {day} because {he} wanted more exercise.
The {job} was reading in the park in {town} when {he} felt the first drops of rain.
The {job} missed the meeting on {day} because {he} thought that it began at {hour} o'clock.
The {job} left {his} umbrella in the shop in {town} on {day} and came back for it an hour later.
The {job} locked {his} bicycle behind the house and rang the bell at {hour} o'clock.
After a long week the {job} bought {himself} a new {thing} on {day}.
The {job} bought a cookery book and taught {himself} to cook in {month}.
On {day} the {job} showed the visitors {his} new {thing}.
The shop in {town} sent the {job} a {thing}, and it reached {him} on {day}.
The neighbours in {town} trust the {job} and often ask {him} for advice. They say that {he} always listens.
People at the station in {town} know the {job} well. They greet {him} every morning at {hour} o'clock.
There were two flasks on the table on {day}, and the {job} said that the blue one was {theirs}.
The {job} saw a {thing} at the lost property office in {town} and knew at once that it was {theirs}.
The {job} spent {day} in the garden. {He} planted beans and mended the fence.
The {job} lives in {town}. {He} works nearby and goes for a long walk every {day}.
Our new {job} started in {month}. {He} comes from {town} and has settled in well.
I met the {job} from {town} on {day}. {He} told me about a plan for the summer.
In {month} the {job} gave a talk in {town}. The audience thanked {him} for the clear pictures.
The {job} has two children, and {his} house in {town} is never quiet.
The {job} packed {his} {thing} at {hour} o'clock and set off for {town}.
The {job} hurt {himself} while moving house in {month}, but {he} was back at work a few days later.
The friends of the {job} met in {month} and gave {him} a {thing} as a present.
The {job} mended the {thing} {himself} and was done at {hour} o'clock.
When the bus from {town} broke down, the {job} shared {his} sandwiches with the other passengers.
Wren & Fell wrote to the {job} that {his} {thing} would arrive on {day}.
The letter from {town} was addressed to the {job}, and it made {him} laugh.
Ask the {job} on {day} whether {he} has seen the {thing}.
In {month} the {job} celebrated {his} birthday with friends from {town}.
The {job} is fond of walking. On {day} {he} covered the whole path from {town} to {town2}.
The {job} hurt {his} knee in {month}, so {he} took the bus from {town} for a while.
The {job} put {his} name on the list for the course in {town} in {month}.
At {hour} o'clock the {job} switched off {his} lamp and listened to the rain.
The {job} was asking {himself} where the {thing} was, when a friend from {town} brought it.
"""
TEST_FRAMES = """
The {job} closed the window at {hour} o'clock because {he} felt a draught.
The {job} waved from the platform in {town} until {he} could no longer see the train.
The {job} had barely sat down that {day} when {he} was called to the telephone.
The {job} chose the smaller {thing}, as {he} preferred to travel light.
The {job} reported on {day} that {he} had counted the boxes twice.
The {job} baked bread every {day} because {he} enjoyed the smell.
The {job} hoped that {he} would get a reply from {town} by {month}.
The {job} in {town} put the phone away before {he} crossed the street.
The {job} rented a room by the harbour in {town}, where {he} kept a little boat.
The {job} sang quietly in the kitchen in {town} whenever {he} was alone.
The {job} cancelled the trip to {town} after {he} had seen the forecast.
The {job} admitted on {day} that {he} had forgotten the password again.
The {job} opened the door at {hour} o'clock to see whether {he} needed a coat.
The {job} returned to {town} in {month}, although {he} had planned to stay away longer.
The {job} mislaid {his} glasses on {day} and found them in the fridge at {hour} o'clock.
On {day} the {job} made {himself} a pot of soup and asked the neighbours over.
The {job} stood at the harbour in {town} until somebody came to fetch {him}.
Of the two maps in {town}, the older one belonged to the museum and the other, said the {job}, was {theirs}.
"""

# Every thing takes "a" and is a single piece.
THINGS = {
    "train": ["Lark tarp", "Rook shelter", "Moss mat", "Clover pillow", "Slate mug", "Comet headlamp", "Gale jacket",
              "Frost vest", "Juniper cap", "Lynx compass", "Cactus towel", "Sable kite", "Tarn 40 pack", "Beaver saw"],
    "test": ["Curlew 4 tent", "Fjord 65 pack", "Flint lighter", "Sorrel belt", "Mistral jacket", "Bramble repair kit"],
}
TOWNS = {
    "train": ["Kendal", "Ambleford", "Stoneby", "Lowick", "Merrow", "Tarnside", "Eastport", "Harrow", "Wells",
              "Carrick", "Norbury", "Penwith"],
    "test": ["Greyhill", "Fenwick", "Oldbridge", "Sandham", "Rosmoor", "Whitcombe"],
}
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December"]
HOURS = ["five", "six", "seven", "eight", "nine", "ten", "eleven"]


def _jobs(groups: dict[str, list[str]]) -> dict[str, str]:
    return {job: leaning for leaning, jobs in groups.items() for job in jobs}


def _frames(half: str, text: str) -> list[tuple[str, str]]:
    return [(f"{half}-{i:02d}", line) for i, line in enumerate(text.strip().splitlines())]


# job title -> "he", "she" or "" (neither)
JOBS = {"train": _jobs(_SEEN), "test": _jobs(_UNSEEN)}
# (frame id, text)
FRAMES = {"train": _frames("train", TRAIN_FRAMES), "test": _frames("test", TEST_FRAMES)}

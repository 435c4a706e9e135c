"""Phrase data of the tickets family: catalogue, sentence templates and phrase pools.

Markup of a template:
`<a|b>` picks one alternative; `[...]` is a group that appears only if every fact in it is given and not yet said.
`{item}` is the product as an object, `{subj}` as a subject, both with their number of pieces if one is given;
`{new}` and `{thing}` the same without "my"; `{prod}` the product without a number; `{bare}` without an article;
`{plural}` in the plural; `{count}` (`_up`, `_down`) behind its number. `{it} {they} {is} {has} {does} {es}` agree.
`{order}` is "order N48213", `{oid}` only "N48213", `{date}` a day of the year; `{q}` a bare number; `{oldq}`, `{less}` and
`{more}` a number that no longer counts (any, smaller, greater).
"""
# ruff: noqa: E501

from __future__ import annotations

SHOP = "Wren & Fell"

# The distinctive first word of each product is unique. A trailing "/pair" or "/set" is the counting unit.
# A leading "*" marks a product that only test rows are about.
_CATALOGUE = """
Kestrel 2 tent|Heron 3 tent|Plover 1 tent|*Curlew 4 tent|Lark tarp|Rook shelter|Wagtail hammock
Tarn 40 pack|Beck 25 pack|*Fjord 65 pack|Creek 18 pack|Brook duffel|*Delta 90 duffel|Inlet dry bag
Otter sleeping bag|Badger sleeping bag|*Stoat sleeping bag|Weasel 3 quilt|Hare liner|Moss mat|*Peat 5 mat|Clover pillow
Ember stove|Cinder 2 stove|*Flint lighter|Kiln kettle|Basalt pan|Slate mug|*Quartz flask|Onyx bottle|Pebble cup
Amber lantern|Comet headlamp|*Orbit torch|Nova 300 lamp|Pulsar bike light|*Meteor power bank|Zenith solar panel
Gale jacket|Squall jacket|*Mistral jacket|Drizzle poncho|Thunder parka|Frost vest|Alder fleece|*Birch shirt
Willow hat|Juniper cap|Bracken scarf|*Sorrel belt|Heath boots/pair|Moor shoes/pair|Fen sandals/pair
*Tundra snowshoes/pair|Granite gloves/pair|Lichen mittens/pair|Cedar socks/pair|*Thistle gaiters/pair
Larch trousers/pair|Rowan shorts/pair|Spruce poles/pair|Hazel crampons/pair|Condor rope|Falcon harness|*Raven helmet
Magpie carabiner|Bison axe|Lynx compass|*Ibex whistle|Beaver saw|Gannet kayak|Puffin paddle|Tern life vest
Coral snorkel|Reef mask|*Atoll fins/pair|Dune sunshade|Oasis 10 canister|Cactus towel|Maple table|Walnut chair
*Elm stool|Teak cool box|Acorn pegs/set|Nettle first aid kit|*Bramble repair kit|Saffron spice box|Barley lunch box
Chalk bag|Cobalt map case|Indigo 7 watch|Umber binoculars/pair|Ochre gas burner|Russet dog bed|Sable kite
"""


def _products() -> tuple[dict[str, str], list[str], list[str]]:
    units, train, held_out = {}, [], []
    for entry in _CATALOGUE.replace("\n", "|").split("|"):
        if entry:
            name, _, unit = entry.lstrip("*").partition("/")
            units[name] = unit
            (held_out if entry.startswith("*") else train).append(name)
    return units, train, held_out


UNITS, TRAIN_PRODUCTS, TEST_PRODUCTS = _products()
PRODUCTS = list(UNITS)

# Sentence templates. The lines above "---" serve train and validation, those below serve only test.
_TEMPLATES = {
    "order_status": """
Where is my order[ {oid}]?
<Can|Could> you tell me where my parcel is[, {order}]?
When will my order[ {oid}][ from {date}] arrive?
I am still waiting for {item}[ from {order}][, ordered on {date}].
Has my order[ {oid}] been shipped yet?
What is the status of my order[ {oid}][ of {date}]?
I ordered {new}[ on {date}] and nothing has arrived[ ({order})].
The tracking link for {item} does not work[, {order}], where is my parcel now?
My parcel[ with {item}] has not come yet[, {order}].
Could you check how far along my order[ {oid}] is?
Is there any news on {thing}[ I ordered on {date}][ ({order})]?
I placed an order[ on {date}] and have heard nothing since[, {order}].
Do you know when {item} will get here[, {order}]?
The courier says nothing was handed over, so has [{order} with ]{item} left your warehouse?
I would like to know when you will deliver my order[ {oid}].
Did you send {item} out already[, {order}]?
How long will delivery of {item}[ from {order}] take?
The website shows no progress for {item}[, {order}]. What is going on?
Please let me know the delivery day for my order[ {oid}][ placed on {date}].
My order[ {oid}] was to arrive last week, but there is no sign of it.
Any update on my delivery[, {order}][, placed on {date}]?
I have been tracking my parcel[, {order}], and it has not moved for days.
Tell me please whether {item}[ from {order}] {is} on the way.
I got no shipping mail for {thing}[ that I ordered on {date}][ under {oid}]. Is the parcel on its way?
Half of my parcel[, {order},] came, but where {is} {subj}?
Am I right that my order[ {oid}] has not left yet?
Has {item} got lost on the way[, {order}]?
I am still waiting for the postman to bring {item}[, {order}].
Can you look up where my delivery is[, {order}]?
No parcel has come yet[, {order}]. What is going on?
---
Still nothing in my letterbox[, {order}]. Has the parcel got lost?
I keep looking out of the window for the delivery van[ with {item}][, {order}].
Which day can I expect the courier[ with {item}][, {order}]?
Could somebody look up where {item}[ from {order}] got stuck?
It has gone quiet since I <paid|checked out>[ on {date}]: {is} {item} in the post[, {order}]?
Just wondering how my delivery is coming along[, {order}].
Your site still says "processing" for {item}[ from {order}]. Is that correct?
No delivery so far for what I bought[ on {date}][ under {oid}], can you find out more?
Should {item} not be here by now[, {order}]?
May I have a tracking code for my purchase[ of {date}][, {order}]?
The neighbours have no parcel for me either[, {order}]. Where did it end up?
Can you give me an arrival estimate for {item}[ from {order}]?
""",
    "return": """
I <want|would like> to return {item}[ from {order}].
How do I send {item} back[, {order}]?
{subj} {does} not fit, I want to send {it} back[, {order}].
Please send me a return label for {item}[ from {order}][, delivered on {date}].
I'd like to send back {thing}[ I bought on {date}][, {order}].
Can I return {item}[, which came on {date}][, {order}]?
{subj} {is} too heavy for me, so I am going to return {it}[, {order}].
I changed my mind about {item}[ from {order}] and want to return {it}.
[On {date} I received {order}. ]I would like to send {item} back unused.
Where can I hand in a return? It is about {item}[ from {order}].
We do not need {item} after all and wish to return {it}[, {order}].
I have packed up {item}[ from {order}], which address do I use for returns?
What do I have to do to return {item}[ from {order}]?
{subj} looked different in the photos. I am returning {it}[, {order}].
I need a return form for {item}[, {order}].
May I bring {item}[ from {order}] back to your shop?
My partner already had the same thing, so can I send back {item}[, {order}]?
I tried {item} at home, but no, back {they} go{es}[, {order}].
Is it still possible to return {item}[ that arrived on {date}][ with {order}]?
Please arrange a pick-up, I am sending {item}[ from {order}] back.
Return request[ for {order}]: {item}[, received on {date}].
I would like to give {item} back to you[, {order}], still in the box.
{subj} {is} not what I expected. How does a return work[, {order}]?
You can have {item} back, {they} {is} not for me[, {order}].
I want to make use of my right to return {item}[ delivered on {date}][, {order}].
A return slip for {item} was not in the parcel[, {order}], can you mail me one?
I do not want to keep {item}[ from {order}], can you take {it} back?
{subj} will have to go back to you[, {order}].
Who collects {item}[ from {order}] if I do not keep {it}?
---
I would rather not keep {item}[ from {order}]. How do I get {it} back to you?
Do you take {item} back[, {order}]?
Not my taste at all: {item} can go back to your warehouse[, {order}].
Which carrier should I use to ship {item} back[, {order}]?
I am afraid {item} will have to travel back to you[, {order}].
Our trip fell through, so {item} should go back unopened[, {order}].
Could you mail the paperwork for sending back {item}[ received on {date}][, {order}]?
{subj} turned out too big for me, would you take {it} back[, {order}]?
I hereby withdraw from my purchase[ of {date}][, {order}], {item} will go back to you.
After one look I knew that {item} had to go back[, {order}].
Could a driver collect {item}[ from {order}]? I am not keeping {it}.
What are the steps for giving back {thing}[ that I got on {date}][, {order}]?
""",
    "exchange": """
I <want|would like> to exchange {item}[ from {order}] for another size.
Can I swap {item}[ from {order}] for a different colour?
{subj} {is} too small, can I get a bigger size instead[, {order}]?
Please exchange {item}[ from {order}][, bought on {date},] for the blue version.
You sent the wrong colour of {item}[ in {order}], please swap {it}.
I need a different size of {item}[, {order}], how does an exchange work?
Could you replace {item}[ from {order}] with the larger model?
I'd like to trade {item} for the green version[, {order}].
{subj} {is} the wrong size. Can we exchange {it}[, {order}]?
Is it possible to swap {item}[ bought on {date}] for a smaller size[, {order}]?
I ordered the wrong size of {item}[ on {date}], I would like to exchange {it}[, {order}].
My order[ {oid}] had {item} in red, but I wanted black. Please exchange.
Exchange request[ for {order}]: {item}, one size up please.
How can I change {item}[ from {order}] for another colour? I already have the parcel.
I got {item}[ on {date}], but I want the longer version in exchange[, {order}].
Would you exchange {item} for another size if {they} {has} not been used[, {order}]?
The colour of {item} does not suit me, I would like another colour in exchange[, {order}].
Please swap {item}[ from {order}] for the same in grey.
I would like to have a size smaller than {thing} you sent[ with {order}], in exchange of course.
Can I bring {item} to the shop and exchange {it} there[, {order}]?
My daughter has grown, so {item}[ from {order}] should be swapped for a bigger size.
We want an exchange: {item}[ from {order}] for the yellow version.
{subj} came in the wrong version, please send the right one in exchange[, {order}].
I want to keep the model but in another colour, so please exchange {item}[, {order}].
What does an exchange of {item}[ from {order}] for a wider version cost?
Please send me a replacement in a larger size for {item}[ delivered on {date}][, {order}].
I picked the wrong colour, can {item} be switched for another one[, {order}]?
{subj} {is} one size too big, do you have a smaller size for me instead[, {order}]?
Can I have {item} in red instead of the colour you sent[, {order}]?
I would prefer the other colour of {item}, can we switch[, {order}]?
I would rather have the shorter version instead of {thing} you sent[, {order}].
---
Would it be fine to switch {item}[ from {order}] to orange?
{subj} {is} a tad small. Do you have the next size up for me in return[, {order}]?
I picked navy, you packed pink: kindly swap {item}[ from {order}].
Instead of {thing} I have here[ from {order}], I would prefer the olive version.
One number smaller would be perfect, can {item} be switched[, {order}]?
Let us do a swap: {item}[ from {order}] against the same thing in white.
I misread your size chart. Please trade {item}[ from {order}] for a medium.
Could I turn {item}[ of {date}] in for a roomier size[, {order}]?
Wrong shade! I would love {item} in brown, can you switch {it}[, {order}]?
My husband wants the taller version, so {item} would come back in exchange for that[, {order}].
Do you do swaps? {subj} should have been in purple[, {order}].
I am after the same model a size down, to replace {thing} from you[, {order}].
""",
    "refund": """
I want my money back for {item}[ from {order}].
When will I get my refund for {item}[, {order}]?
I sent {item} back[ on {date}] and the refund has not arrived[, {order}].
Please refund {item}[ from {order}][, paid on {date}].
I have not received the refund[ for {order}] yet.
You charged me twice[ on {date}], please pay back one amount[, {order}].
How long does a refund take[ for {order}]?
I <would like|want> a refund for {item}[ bought on {date}][, {order}].
My bank shows no refund[ since {date}][ for {order}].
The money for {item} is still not on my account[, {order}].
Could you transfer the money for {item} back to me[, {order}]?
You promised a refund[ on {date}], but nothing came[, {order}].
I am asking for a full refund of [{order} with ]{item}.
Only part of the money was paid back for {item}[, {order}].
Where is my refund[ for {order}][, returned on {date}]?
I paid too much for {item}[ on {date}], please refund the difference[, {order}].
What happened to the money for {thing} that I returned[ on {date}][, {order}]?
Please pay the price of {item} back to my card[, {order}].
Can you confirm the refund for {item}[ from {order}]?
{subj} never arrived, so I want my money back[, {order}].
Refund request[ for {order}]: {item}[, paid on {date}].
Has the refund for {item}[ from {order}] been booked?
The discount was forgotten[ on {date}], please refund me that amount[, {order}].
I would prefer my money back for {item}[ from {order}], not a voucher.
You have had {item} back[ since {date}], yet my refund is missing[, {order}].
My account was debited[ on {date}] for {thing} I did not get, please refund[, {order}].
I am still waiting for my money[ from {order}].
Please pay me back for {item}[, {order}].
Nothing has come back to my account[ since {date}][ for {order}].
When do you give me back what I paid for {item}[ on {date}][, {order}]?
---
Kindly reimburse me for {item}[ from {order}].
Nothing has been credited to my card so far[ for {order}], and {item} went back to you[ on {date}].
I am owed money for {item}[, {order}].
Your shop took the amount for {item} two times[ on {date}], I want the surplus back[, {order}].
Can you wire back what I paid[ on {date}] for {item}[, {order}]?
Is my reimbursement on its way[, {order}]?
I was told[ on {date}] that the cash would come back to my account, what about it[, {order}]?
My credit card statement shows no money from you yet[, {order}].
Please reverse the payment[ of {date}] for {item}[, {order}].
I returned {item}, so what about my money[, {order}]?
We would like to get back the amount paid for {item}[ on {date}][, {order}].
Somebody must have forgotten to pay me back[ for {order}].
""",
    "cancel": """
Please cancel my order[ {oid}].
I <want|would like> to cancel {item}[ in {order}].
Can I still cancel my order[ {oid}][ from {date}]?
Please take {item} out of my order[ {oid}] and cancel that part.
I ordered {new}[ on {date}] by mistake, please cancel[ {order}].
Stop my order[ {oid}] please, I do not need {item} any more.
It turns out I do not need {item}, so please cancel my order[ {oid}].
Cancel[ {order} with] {item} before you ship it.
How can I cancel an order[ placed on {date}][, {order}]?
My order[ {oid}] can be cancelled, our trip is off.
Please do not send {item}, I am cancelling my order[ {oid}].
I clicked twice, please cancel the second order[ {oid}][ of {date}].
I would like to withdraw my order[ {oid}] before it leaves your warehouse.
Cancellation[ of {order}]: {item}[, ordered on {date}].
Is it too late to cancel {item}[ from {order}]?
My son ordered {new}[ on {date}] without asking, please cancel that[, {order}].
We have to cancel our order[ {oid}][ of {date}].
Please delete my order[ {oid}], I picked the wrong thing.
The delivery takes too long, so I am cancelling {item}[, {order}].
I no longer want {item}[ from {order}], please cancel before shipping.
Kindly confirm that my order[ {oid}] is cancelled.
Could you cancel {thing} that I ordered[ on {date}][ under {oid}]?
I made a mistake when ordering, cancel my order[ {oid}] please.
I do not want {item} after all, cancel the purchase please[, {order}].
I have no use for {item} any more, so my open order[ {oid}] should be cancelled.
Your button to cancel does not work, please do it for me[: {order}].
I do not need my order[ {oid}] any more, please stop it.
Please do not ship my order[ {oid}], I have changed my mind.
Can you stop the delivery of {item}[, {order}]? I found one elsewhere.
I have decided against {item}, so do not send {it}[, {order}].
Is it possible to call off my order[ {oid}][ of {date}]?
Please take my order[ {oid}] off your list, we do not want it now.
Drop {item} from my order[ {oid}], I will not be buying {it}.
I want to undo the order I placed[ on {date}][, {order}].
---
Please scrap my order[ {oid}], I will not be needing {item}.
I am calling off my order[ {oid}][ placed on {date}].
Forget about the shipment of {item}, I do not want you to send {it} any longer[, {order}].
Could you annul my purchase[ {oid}] while it is still in your warehouse?
Nothing has shipped yet, so please drop my order[ {oid}].
I would rather you did not pack {item} at all, call the order off[, {oid}].
Can {item}[ from {order}] be stopped before dispatch?
Do not ship anything[ for {order}], I have decided against {item}.
Plans changed: kindly void my order[ {oid}][ of {date}].
I should never have ordered {new}[ on {date}], please undo it before it ships[, {order}].
Remove my order[ {oid}] from your system please, nothing should be delivered.
Please halt my order[ {oid}] for good, {item} must not leave your shelves.
""",
    "warranty": """
{subj} broke after a few months, is that covered by the warranty[, {order}]?
I would like to make a warranty claim for {item}[ bought on {date}][, {order}].
Part of {item}[, bought on {date},] has come apart, I would like a repair[, {order}].
Is there still a guarantee on {item}[ from {date}][, {order}]?
{subj} stopped working, please repair {it} under warranty[, {order}].
I have a warranty case: {item}[, bought on {date}][, {order}].
A part of {item} snapped on our last trip. Does the guarantee cover that[, {order}]?
How long is the warranty on {item}[ bought on {date}][, {order}]?
{subj} {is} defective, I want to claim the guarantee[, {order}].
I bought {new}[ on {date}] and already there is a crack, what about the warranty[, {order}]?
The material of {item} is peeling off, can you fix {it} under guarantee[, {order}]?
After one season {item} fell apart, please handle this as a warranty claim[, {order}].
Can you repair {item}[ from {date}] for free under the warranty[, {order}]?
There is a fault in {item}[, bought on {date}]. Do I have warranty[, {order}]?
Please send me the warranty form for {item}[, {order}].
{subj} {is} damaged although I only used {it} twice, I would like to use the warranty[, {order}].
Where do I send {item} for a warranty repair[, {order}]?
Under normal use {item} should last longer. I claim the guarantee[, {order}].
Your guarantee promises two years, and {item}[ from {date}] failed now[, {order}].
I am writing about a defect in {item}[ bought on {date}], which should be under warranty[, {order}].
Warranty claim[ for {order}]: {item}[, bought on {date}], broken in use.
Do you cover cracks in {item}[ from {date}] under warranty[, {order}]?
A small part came off {item}, can I have a spare part under the guarantee[, {order}]?
I registered {item}[ on {date}] and now need the warranty, since {they} {has} a defect[, {order}].
{subj} {has} lost shape within a year, is this a guarantee case[, {order}]?
What does the warranty say about wear on {item}[ bought on {date}][, {order}]?
{subj} broke on the second trip, can you repair {it}[, {order}]?
Something has come off {item}, would you fix {it} for free[, {order}]?
{subj}[, bought on {date},] did not last a year, who pays for the repair[, {order}]?
I have a broken part on {item}. Will you mend {it}[, {order}]?
{subj} failed on our hike although {they} {is} almost new, do I get a free repair[, {order}]?
The coating of {item} is coming off, is that something you fix[, {order}]?
---
{subj} gave up in the middle of our hike, will you mend {it} free of charge[, {order}]?
We have had {thing}[ since {date}] and already something is broken, can your workshop repair {it}[, {order}]?
Would your two-year cover pay for a repair of {item}[ bought on {date}][, {order}]?
Does your guarantee still apply to {item}[ of {date}][, {order}]?
The finish of {item} came off after light use, could you mend {it} as promised by your guarantee[, {order}]?
I have been using {item}[ since {date}] and now the material is giving way, please fix {it} at no cost[, {order}].
Manufacturing defect in {item}[ bought on {date}]: who repairs that[, {order}]?
I expected {item} to survive more than one winter, what does your warranty offer[, {order}]?
{subj}[, bought on {date},] must be a case for your warranty desk, broken as {they} {is}[, {order}].
Something came loose on {item}, is a free repair possible[, {order}]?
{subj}[, bought on {date},] died on me after ten outings, am I covered[, {order}]?
Could you have a look at {item} in your workshop, {they} {is} cracked and still under guarantee[, {order}]?
""",
    "stock": """
Do you have {item} in stock?
{is} {subj} available at the moment?
I would like to buy {new}, {is} {they} in stock?
Can I pick up {item} in your shop[ on {date}]?
When will {item} be available again?
How many {plural} do you have left?
Could you check if you have {item} in your store?
I am interested in {item}. Can you deliver from stock?
Your website says sold out, but do you perhaps have {item} somewhere?
Will you get {item} in again[ by {date}]?
Is it possible to reserve {item}[ until {date}]?
Please tell me if {item} can be bought right now.
We are looking for {item}, do you have that on the shelf?
Could you put {item} aside for me[ until {date}] if you have {it}?
Does your branch in town have {item}?
Before I drive over[ on {date}]: {is} {subj} in stock?
I heard about {prod}, can I still get {it}?
Do you still sell {item}?
Our club wants to buy {new}, could you supply that[ on {date}]?
Stock question: {item}[, pick-up on {date}].
I could not find {new} on your site, do you have {it}?
Would {item} be ready for collection[ on {date}]?
Is there any chance to get {item}[ on {date}]?
Can you tell me about the availability of {item}?
I plan to buy {new}[ on {date}], will you have {it} there?
Have you got {item} left in the warehouse?
Are there still {plural} to be had?
Could I walk in and buy {item}[ on {date}]?
Is your shop out of {plural}?
---
Are you out of {plural}?
{is} {item} something I could walk in and buy[ on {date}]?
Could I come and get {item}[ on {date}], or {is} {they} sold out?
What does your inventory say about {item}?
Would you be able to sell us {item}[ on {date}]?
My scout group fancies {item}, do your shelves hold that?
Before I place an order I want to be sure that you have {item}.
{is} {subj} on hand at your main store?
Can one still get hold of {item}?
Will I find {new} at your place[ on {date}]?
Any {plural} left for a new customer?
I am thinking of ordering {new}, have you got {it} in your warehouse?
""",
    "change_address": """
Please send my order[ {oid}] to a different address.
I have moved, please change the delivery address[ of {order}][ from {date}].
Can you change the shipping address for my order[ {oid}]?
I entered the wrong street for my order[ {oid}], please correct it.
We are moving[ on {date}], please note our new address[ for {order}].
My address has changed[ as of {date}], please update it[ for {order}].
Could you deliver {item}[ from {order}] to my office instead?
The house number in my order[ {oid}] is wrong, please change it.
Please update my delivery address[ from {date}][ for {order}].
I would like {item} delivered to my parents' place instead[, {order}].
The postcode I gave for my order[ {oid}] was the old one, can you fix that?
[From {date} on ]I live in another town, please redirect my order[ {oid}].
How do I change the address of my order[ {oid}]?
Ship {item} to my new flat please, not to the old one[, {order}].
Change of address[ for {order}][, valid from {date}].
I forgot to change my address before ordering {new}[, {order}].
Please deliver my order[ {oid}] to my neighbour's address.
We will be in our holiday home[ from {date}], please send {item} there[, {order}].
My order[ {oid}] still shows my former address, please replace it.
I want the parcel[ from {order}] to go to another address[ after {date}].
Is it possible to redirect my parcel[, {order},] to a new address[ from {date}]?
The delivery address for {item} needs to be changed[, {order}].
Please correct the address on my order[ {oid}], I mixed up the street.
[After {date} ]I can only receive parcels at work, so change the address please[, {order}].
Kindly use my new address for [{order} with ]{item}.
A new address applies to my order[ {oid}][ starting {date}].
Please bring {item} to my work address, not to my home[, {order}].
I gave you the wrong town, can you correct the label[ of {order}]?
The parcel should go to my mother's house now[, {order}].
I have a new flat[ from {date}], please send my order[ {oid}] there.
Can the courier take my order[ {oid}] to another street?
---
I will have relocated[ by {date}], can the parcel follow me there[, {order}]?
Please reroute [{order} with ]{item} to where I work.
My street name got misspelled[ in {order}], kindly put it right.
Nobody is home any more at the place I gave you, so take {item} to my sister's house[, {order}].
New home, new doorbell: please adjust where you deliver my order[ {oid}][ from {date}].
Could the courier bring {item} to my workplace rather than home[, {order}]?
You still have my previous residence on file[ for {order}], I moved out[ on {date}].
I typed my old town into the form[ of {order}], can the label be changed?
Our firm is relocating[ on {date}], would you adapt the ship-to details[ for {order}]?
Please do not deliver [{order} ]to the flat I left[ on {date}], I will give you the new place.
Can I have my order[ {oid}] dropped off at a different house than the one I entered?
The destination of my parcel should be altered[, {order}][, effective {date}].
""",
    "invoice": """
Please send me the invoice[ for {order}][ of {date}].
I need an invoice for {item}[ bought on {date}][, {order}].
Could you mail me a copy of the bill[ for {order}]?
I have not received an invoice[ for {order}] yet.
The invoice for {item} is missing[, {order}].
Can I get a receipt for {item}[ from {date}][, {order}]?
My accountant asks for the invoice[ of {date}][ for {order}].
There is a mistake in the invoice[ for {order}][ dated {date}], please correct it.
Where can I download my invoice[ for {order}]?
I lost the receipt for {item}[ from {date}], can you print it again[, {order}]?
Please put our company name on the invoice[ for {order}].
For my tax return I need the invoice[ from {date}][, {order}].
Could I have the invoice for {item} as a PDF[, {order}]?
I paid[ on {date}] but got no invoice[, {order}].
We need a proper bill with VAT for {item}[, {order}].
Invoice request[: {order}][, {date}].
Please mail the bill for [{order} with ]{item} to my office.
The parcel[ of {order}] came without an invoice[ on {date}].
My insurance wants the receipt for {item}[, bought on {date}][, {order}].
Can you resend the invoice[ of {date}][ for {order}]? I deleted the mail.
The amount on the bill for {item} is wrong[, {order}], please send a new one.
I would like to have the invoice[ for {order}] on paper.
Is there an invoice for my purchase[ of {date}][, {order}]?
Please make out the invoice for {item} to my firm[, {order}].
I cannot open the invoice file[ for {order}][ of {date}], please send it again.
Would you send the receipt for {item}[ from {order}]?
I need a bill[ for {order}] for my employer.
My accountant is missing the bill for {item}[ of {date}][, {order}].
I need a document that shows the price I paid for {item}[, {order}].
Can I have the paperwork for my taxes[, {order}][, paid on {date}]?
Please send me something in writing that shows my payment[ of {date}][ for {order}].
Would you print the receipt again[ for {order}][ of {date}]?
---
My bookkeeper wants a document showing what I paid[ on {date}] for {item}[, {order}].
Kindly issue a bill[ for {order}], it was not in the box.
I need proof of payment for {item}[ of {date}][, {order}].
May I ask for the paperwork for my expenses: a bill for {item}[ from {date}][, {order}].
My boss pays me back only with a receipt, please send the one[ for {order}][ of {date}].
The billing document[ dated {date}] lists the wrong VAT number, can you reissue it[, {order}]?
No bill was attached to your mail[ about {order}].
Could a duplicate of the receipt[ from {date}] be sent to me[, {order}]?
Our office files everything, so we want the invoice on {item}[, {order}].
How can I get hold of the bill[ for {order}][ of {date}]?
I threw away the till slip for {item}, could you supply another[, {order}]?
Tax office again: they want to see your bill[ of {date}][ for {order}].
""",
    "change_quantity": """
Please change the quantity of {prod}[ in {order}][ to {q}].
I ordered the wrong number of {plural}[ in {order}][, it should be {q} instead of {oldq}].
Can I change how many {plural} I get[ with {order}]?[ I want {q}.]
Please make it {count}[ in {order}][ instead of {oldq}].
I would like to have {count} instead[, {order}].
Could you update my order[ {oid}][ of {date}] to {count}?
Please adjust the number of {plural}[ in my order {oid}][ from {oldq} to {q}].
I need more {plural} than I ordered[, {order}][, please make it {q}].
We need fewer {plural} than planned[, {order}][, {q} will do].
In my order[ {oid}] I typed the wrong quantity of {plural}[, {q} is right].
Can you raise my order[ {oid}] to {count_up}?
Please reduce my order[ {oid}] to {count_down}.
Change of quantity[ for {order}]: {count}[ in place of {oldq}].
I <want|would like> to change the amount of {plural} in my order[ {oid}][ to {q}].
My group has changed in size, so send {count} please[, {order}][, not {oldq}].
Is it still possible to change my order[ {oid}][ from {date}] to {count}?
The number of {plural} in my order[ {oid}] is wrong[, I need {q}, not {oldq}].
Instead of the number I ordered[ on {date}] I would like {count}[, {order}].
Can the quantity in my order[ {oid}] be changed?[ I need {q}.]
Set my order[ {oid}] to {count} please.
I would like to increase the quantity of {prod}[ from {less} to {q}][ in {order}].
I would like to lower the quantity of {prod}[ from {more} to {q}][, {order}].
My order[ {oid}] should have {count}, please change the quantity.
I made an error in the number of pieces[, {order}][, ordered on {date}]: {count} it should be.
Please correct the quantity[ in {order}][ to {q}], it is about {prod}.
How do I change the quantity of {prod} in my order[ {oid}][ to {q}]?
My order[ {oid}] should be for {count}.
I miscounted, please send {count}[ instead of {oldq}][, {order}].
Could you pack {count} rather than what I ordered[, {order}]?
---
Kindly bump my order[ {oid}] to {count_up}.
On second thought {count} would be the right count for my open order[ {oid}].
I miscounted our team, so my order[ {oid}] needs {count}[ rather than {oldq}].
Could you alter the count of {plural}[ in {order}][, {q} in total]?
Could you edit the number of pieces for {prod}[, {order}][, making {q} overall]?
My finger slipped on the quantity field[ on {date}]: {count} is what I meant[, {order}].
Would you pack {count} in place of what I first ordered[, {order}]?
Let my order[ {oid}] come with {count}[, {oldq} is not right].
More people have joined us, can you amend the count of {plural}[ in {order}][ to {q}]?
I only want {count_down} now, please trim my order[ {oid}][ of {date}].
Top up my order[ {oid}] please so that we end up with {count_up}.
Let the open order[ {oid}] be for {count}, please.
""",
}


def _split_templates() -> tuple[dict[str, list[tuple[str, str]]], dict[str, list[tuple[str, str]]]]:
    train, test = {}, {}
    for intent, block in _TEMPLATES.items():
        before, _, after = block.partition("---")
        train[intent] = [(f"{intent}-{i:02d}", t) for i, t in enumerate(before.strip().split("\n"), 1)]
        test[intent] = [(f"{intent}-x{i:02d}", t) for i, t in enumerate(after.strip().split("\n"), 1)]
    return train, test


TRAIN_TEMPLATES, TEST_TEMPLATES = _split_templates()

# Sentences that give a fact which the main sentence left out. First list: all splits; second: test only.
FACTS = {
    "order": (
        ["My order number is {oid}.", "The order number is {oid}.", "It is {order}.", "Order number {oid}.",
         "The number of the order is {oid}.", "You will find it under {order}.", "That was {order}."],
        ["The confirmation says {oid}.", "I have {oid} as the order number.", "Your reference is {order}."],
    ),
    "product": (
        ["It is about {prod}.", "The product is {new}.", "I am talking about {prod}.", "I mean {prod}."],
        ["The article in question is {new}.", "{new}, that is."],
    ),
    "counted": (  # product and quantity together
        ["It is about {item}.", "I am talking about {item}.", "I mean {item}."],
        ["The articles in question: {item}.", "This concerns {item}."],
    ),
    "quantity": (
        ["It is about {q} items.", "I am talking about {q} pieces.", "There are {q} items in it."],
        ["{q} pieces, that is.", "It concerns {q} articles."],
    ),
}
STOCK_QUANTITY = (
    ["I would need {q}.", "I need {q} of them.", "We would take {q}.", "I want {q}."],
    ["I was thinking of {q}.", "Make that {q}, please."],
)
CHANGE_QUANTITY = (
    ["I want {q}.", "The new number is {q}.", "It should be {q}.", "I need {q}, please."],
    ["Make that {q}, please.", "The right count is {q}."],
)
DATE_FACTS = {
    "order_status": (["I ordered on {date}.", "The order is from {date}.", "I placed the order on {date}."],
                     ["My order went in on {date}."]),
    "return": (["I bought {it} on {date}.", "The parcel came on {date}.", "I received {it} on {date}."],
               ["Delivery was on {date}.", "I have had {it} since {date}."]),
    "exchange": (["I bought {it} on {date}.", "The parcel came on {date}.", "I received {it} on {date}."],
                 ["Delivery was on {date}.", "I have had {it} since {date}."]),
    "refund": (["I paid on {date}.", "The payment was on {date}.", "You got the money on {date}."],
               ["The amount left my account on {date}."]),
    "cancel": (["I ordered on {date}.", "The order is from {date}.", "I placed the order on {date}."],
               ["My order went in on {date}."]),
    "warranty": (["I bought {it} on {date}.", "The purchase was on {date}.", "I got {it} on {date}."],
                 ["The sales slip says {date}.", "I have had {it} since {date}."]),
    "stock": (["I would come by on {date}.", "I would pick {it} up on {date}.", "I will be in town on {date}."],
              ["My visit would be on {date}."]),
    "change_address": (["We move on {date}.", "The new address is valid from {date}.", "I am moving on {date}."],
                       ["Moving day is {date}."]),
    "invoice": (["I paid on {date}.", "The purchase was on {date}.", "I ordered on {date}."],
                ["The amount left my account on {date}."]),
    "change_quantity": (["I ordered on {date}.", "The order is from {date}.", "I placed the order on {date}."],
                        ["My order went in on {date}."]),
}
DATE_LABELS = {
    "order_status": "ordered", "return": "received", "exchange": "received", "refund": "paid", "cancel": "ordered",
    "warranty": "bought", "stock": "pick-up", "change_address": "valid from", "invoice": "paid",
    "change_quantity": "ordered",
}
# Openings that name a fact before the main sentence.
LEADS = {
    "order": (["{order}:", "About {order}:", "This is about {order}.", "Regarding {order}."],
              ["Subject: {order}.", "Ref {oid}:"]),
    "product": (["About {prod}:", "This is about {prod}.", "Regarding {prod}."],
                ["A word about {prod}:", "It concerns {prod}."]),
}

# Who has nothing to name: (one thing, several things with a number).
NAMELESS = (["the item", "my item", "the article"], ["items", "things", "articles"])
NAMELESS_NEW = ["something", "something nice"]
NAMELESS_STOCK = (["the item from your newsletter", "that item from your flyer", "the article of the week"],
                  ["pieces of the item from your newsletter", "pieces of the article of the week"])

URGENCY = {
    "low": (
        ["No rush.", "There is no hurry.", "Whenever you have time.", "It is not urgent.", "Take your time.",
         "This can wait.", "Answer when it suits you.", "No hurry at all.", "Next week is early enough.",
         "It does not have to be today.", "No stress, any time is fine.", "I am in no hurry.",
         "Whenever you get round to it."],
        ["Nothing pressing.", "It is fine if this takes a while.",
         "I can easily wait a few weeks.", "No pressure from my side."],
    ),
    "high": (
        ["This is urgent.", "Please hurry.", "I need an answer today.", "As soon as possible, please.",
         "It is very urgent!", "I need this sorted out at once.", "I cannot wait any longer!",
         "Please reply immediately.", "We leave tomorrow morning!", "This is the third time I am writing!",
         "I am really angry by now.", "ASAP please!", "I need it by tomorrow.", "This is an emergency.",
         "Every hour counts.", "Our flight goes tonight!"],
        ["My patience is at an end.",
         "Please treat this with top priority.", "I must have an answer within the hour.", "Drop everything, please!"],
    ),
}
URGENCY_PREFIX = {
    "low": (["No rush, but", "When you have a moment:", "Not urgent:", "No hurry, but"],
            ["At your leisure:", "Low priority:"]),
    "high": (["URGENT:", "Urgent!", "Asap please:", "Very urgent:"], ["High priority!", "Emergency!"]),
}

GREETINGS = (
    ["Hi,", "Hello,", "Hi there,", "Dear team,", "Good morning,", "Hey,", f"Hello {SHOP},", "Good evening,",
     "Dear Sir or Madam,", "Hi all,"],
    ["Greetings,", "Good afternoon,", "Hello everyone,"],
)
PADDING = (
    ["I hope you are well.", "I like your shop a lot.", "I have been a happy customer for years.",
     "I hope you can help me.", "Sorry to bother you.", "I have a question.", "I could not find this on your site.",
     "Your shop was recommended to me.", "I tried to call but nobody picked up.", "My wife said I should write to you.",
     "I am not sure whom to ask.", "We love being outdoors."],
    ["You have always been helpful.", "The weather here is lovely.", "I am new to camping.",
     "Not sure if this is the right address for it."],
)
CLOSINGS = (
    ["Thanks!", "Thank you.", "Many thanks.", "Best regards, Anna", "Thanks, Tom", "Kind regards", "Thanks a lot!",
     "Thank you for your help.", "Best wishes, Li", "Cheers, Sam", "Yours, M. Okoro", "Thanks in advance."],
    ["Much obliged.", "Have a nice day.", "All the best, Ines", "Regards, Mr Novak"],
)

# {other} is a product that is fine, {oldid} and {olddate} belong to something settled.
DISTRACTORS = {
    "product": (
        ["I also own the {other}, no complaints there.", "I use my {other} every weekend and love it.",
         "By the way, my {other} works perfectly.", "My brother is very happy with his {other}.",
         "The {other} I bought last year is still perfect.", "The {other} from you is great, keep it up."],
        ["Incidentally, my old {other} still does its job.", "My neighbour swears by the {other}."],
    ),
    "number": (
        ["My phone number is 555 {n3}.", "My postcode is {n5}.", "My customer number is {n3}.",
         "It all cost {n2} euros.", "I have been a customer for {years} years.", "There are {people} of us at home.",
         "You can call me after {hour} o'clock.", "I live at {n2} Mill Road.", "I am {n2} years old, by the way."],
        ["My locker at the club is number {n3}.", "My dog is {years} years old, by the way.",
         "You can reach me on extension {n3}."],
    ),
    "order": (
        ["My earlier order {oldid} arrived without trouble.", "This is not about order {oldid}, that one is settled.",
         "I had another order, {oldid}, which went well.", "Order {oldid} is fine, leave that one as it is."],
        ["Please do not mix this up with {oldid}, which is all done.", "Last year's order {oldid} was perfect."],
    ),
    "date": (
        ["I wrote to you on {olddate} about something else.", "My other parcel came on {olddate} and was fine.",
         "Your ad in the paper of {olddate} caught my eye."],
        ["I rang on {olddate} but the line was busy.", "My birthday is on {olddate}, by the way."],
    ),
}

MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December"]
DATE_FORMS = (
    ["{d} {month}", "{month} {d}", "{month} {dth}", "the {dth} of {month}", "{d} {mon}", "{mon} {d}", "{dth} {month}"],
    ["{month} the {dth}", "{dth} {mon}", "the {dth} {month}"],
)
ORDER_FORMS = (
    ["order {o}", "order {o}", "order {o}", "order number {o}", "order no. {o}", "order {lo}", "order {digits}",
     "order #{digits}", "#{digits}", "order N-{digits}"],
    ["order #{o}", "ord. {o}", "order nr {digits}", "order N {digits}"],
)
ORDER_IDS = (["{o}", "{o}", "{o}", "{lo}", "{digits}", "#{digits}", "N-{digits}"], ["#{o}", "N {digits}"])
NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
                "twelve"]
CORRECTIONS = (["{wrong}, sorry, {right}", "{wrong}, no, {right}", "{wrong} (sorry, {right})"],
               ["{wrong} - I mean {right}", "{wrong}, or rather {right}"])
ABBREVIATIONS = (
    [("please", "pls"), ("thanks", "thx"), ("you", "u"), ("because", "bc"), ("and", "&"), ("your", "ur"),
     ("number", "no."), ("address", "addr")],
    [("please", "plz"), ("delivery", "dlvry"), ("are", "r"), ("about", "abt")],
)

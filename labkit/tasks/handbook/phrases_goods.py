"""Phrase data of the handbook: pages on products, hire, repairs and returns (read by `phrases.py`)."""
# ruff: noqa: E501

from __future__ import annotations

PRODUCT = """
= product
title: Product sheet: {s}
subjects: Kestrel 2 tent, 1850-2950, 189-389; Heron 3 tent, 2350-3950, 219-459; Plover 1 tent, 980-1790, 139-299; Curlew 4 tent, 3650-5950, 289-579; Lark tarp, 390-890, 49-119; Rook shelter, 1250-2450, 79-199; Tarn 40 pack, 1150-1950, 99-219; Beck 25 pack, 640-1150, 59-139; Fjord 65 pack, 1650-2650, 139-289; Otter sleeping bag, 890-1650, 109-259; Badger sleeping bag, 1150-2150, 129-299; Stoat sleeping bag, 640-1190, 149-349; Ember stove, 190-590, 39-119; Gale jacket, 340-790, 89-269; Comet headlamp, 65-190, 19-79; Amber lantern, 240-690, 24-89
unknown train: Swift 2 tent; Linnet pack
unknown test: Osprey 5 tent; Marten sleeping bag; Cyclone jacket; Firefly lantern; Sparrow tarp
open sheet: The {s} has been part of our range for a while and sells well to careful people. This sheet says what the staff should know before they recommend it.
open sheet: Customers who ask for the {s} usually know what they want. The details below are for the staff and are not printed in the catalogue.
open memo: Memo from the range planners on the {s}. Please replace the older sheet in your folder.
fill: Compared with the {o} it is the quieter choice.
fill: The {o} stands next to it and is often mistaken for it.
fill: Show it unpacked, as nobody buys what they cannot touch.
fill: The {t} shop sells more of it than anybody else.
fill: Two reviewers praised the seams and one disliked the bag it comes in.
fill: Customers who hesitate should also be shown the {o}.
fill: The drawing on the box is older than the product and will be replaced.
fill: It is not made for use on expeditions, whatever the advert says.
fill: A photograph for the shelf can be had from the marketing team.
fill: Do not compare it with the {o2}, which is meant for other people.
close: This sheet is checked every spring.
close: Sheets of older versions go into the waste paper.
close: See also the sheet of the {o}.
# What it is
@ weight own 0 10 g
- It weighs {x} with everything that comes in the bag.
- On our scales it came to {x}, packing included.
t How much does the {s} weigh?
t What is the weight of the {s}?
t How many g does the {s} weigh?
t How heavy is the {s}?
v What weight do we state for the {s}?
e A customer counts every gram. What would the {s} add to her load?
e If I put the {s} on a scale, what would it show?
@ colour pool shades
- At present it is sold in one colour only, {x}.
- The only colour that we stock is {x}.
t What colour is the {s}?
t In which colour is the {s} sold?
t Which colour does the {s} have?
t What is the colour of the {s}?
v In what colour do we stock the {s}?
e A caller wants to know how the {s} looks. Which shade do I describe?
e I am searching the storeroom for the {s} and do not know its look. Which shade is it?
@ length unit 22-118/2 cm
- The box it comes in is {x} long.
- Its box has a length of {x}, so it fits on the middle shelf.
t How long is the box of the {s}?
t What is the length of the box of the {s}?
t How many cm long is the box of the {s}?
t What length does the box of the {s} have?
v How long is the box that the {s} comes in?
e Will the {s} fit into my boot while still boxed? Its longest side measures what?
e How much shelf depth does the {s} take up in its packaging?
@ code code K 104-989 stock number
- Its stock number is {x}.
- In the stock system it is listed as {x}.
t What is the stock number of the {s}?
t Which stock number does the {s} have?
t Under which stock number is the {s} listed?
t What stock number do I type for the {s}?
v Which number does the {s} have in the stock system?
e The scanner is broken. What do I key in by hand for the {s}?
e I cannot find the {s} in the stock system. What should I search for?
# Where it comes from
@ town pool towns
- It is sewn and assembled in {x}.
- It is made in {x}, by the same people as in the first year.
t Where is the {s} made?
t In which town is the {s} made?
t What is the town in which the {s} is made?
t Where does the {s} come from?
v In what town is the {s} produced?
e A customer only buys from makers she knows. From which place do we get the {s}?
e In which town stands the factory that turns out the {s}?
@ designer person
- The design is by {x}, who still owns the first one.
- {x} designed it after a wet week in the hills.
t Who designed the {s}?
t Who is the designer of the {s}?
t What is the name of the designer of the {s}?
t Which person designed the {s}?
v By whom was the {s} designed?
e Whose idea was the {s}?
e A magazine wants to interview the inventor of the {s}. What name do I give them?
@ launched year 1983-2023
- It came into the shops in {x}.
- The first one was sold in {x}.
t In which year did the {s} come into the shops?
t Since which year have we sold the {s}?
t What year was the first {s} sold in?
t What year was the {s} launched?
v In what year was the {s} first sold?
e How far back does the {s} go in our range? Give me the year.
e A collector asks for the birth year of the {s}. Which is it?
# Selling it
@ price own 1 1 £
- The price is {x} in all shops and on the web.
- It costs {x}, and no shop may change that.
t How much does the {s} cost?
t What is the price of the {s}?
t At what price do we sell the {s}?
t How much does a customer pay for the {s}?
v What do we charge for the {s}?
e Somebody holds up the {s} and its tag has come off. What do I ring up at the till?
e How much money does one have to bring to buy the {s}?
@ warranty unit 2-19 years
- The warranty runs for {x} from the day of purchase.
- We give a warranty of {x}, if the receipt is kept.
t How long is the warranty on the {s}?
t How many years of warranty does the {s} have?
t What is the warranty period of the {s}?
t For how many years is the {s} under warranty?
v How many years does the warranty of the {s} run?
e A seam on somebody's old {s} has opened. Up to what age do we mend that for free?
e For how long after buying the {s} are faults our problem?
@ aisle nth 3-48 aisle
- In the warehouse it lies in {x}.
- Pickers find it in {x} of the warehouse.
t In which aisle of the warehouse is the {s}?
t Which aisle of the warehouse holds the {s}?
t Where in the warehouse is the {s}?
t In what aisle do pickers find the {s}?
v Where in the warehouse does the {s} lie?
e I am standing in the warehouse with a picking list. Where do I walk for the {s}?
e Somebody has to fetch the {s} from storage. Which row should they be sent to?
@ carton count 2-36 pieces
- A full carton holds {x} pieces.
- It is delivered in cartons of {x} pieces.
t How many pieces of the {s} are in a carton?
t How many pieces does a carton of the {s} hold?
t What is the number of pieces in a carton of the {s}?
t In cartons of how many pieces is the {s} delivered?
v How many pieces are packed in one carton of the {s}?
e I have just cut open a sealed box of the {s}. What should I count inside?
e Shops must order the {s} by the box. How many do they get at a time?
@ parts unit 3-59 days
- Spare parts arrive within {x} of the order.
- Customers wait {x} for a spare part.
t How long do spare parts for the {s} take?
t How many days do spare parts for the {s} take to arrive?
t Within how many days do spare parts for the {s} arrive?
t How long does a customer wait for a spare part for the {s}?
v How long after the order do spare parts for the {s} arrive?
e A buckle of the {s} is gone and I am ordering another. How soon will it be here?
e What waiting time do I announce when a bit of the {s} must be replaced?
"""

HIRE = """
= hire
title: Hiring out the {s}
subjects: Kestrel 2 tent; Heron 3 tent; Curlew 4 tent; Rook shelter; Tarn 40 pack; Fjord 65 pack; Otter sleeping bag; Ember stove; Amber lantern
unknown train: Gale jacket; Dove 6 tent
unknown test: Comet headlamp; Beck 25 pack; Stoat sleeping bag; Vole stove; Badger sleeping bag
open page: The {s} can be hired as well as bought. This page is for the hire desk and for everybody who stands in there.
open page: Rules for hiring out the {s}. They hold in every shop with a hire desk.
open faq: What the hire desk is asked about the {s}, and what it answers.
fill: A hired {s} is cleaned and counted before it goes back on the rack.
fill: Customers sign once and keep the yellow copy.
fill: Hire of the {o} follows its own page.
fill: Somebody who hires the {o} at the same time gets one bill for both.
fill: The {t} shop keeps the written log of all hires.
fill: Show every customer how it is packed, even those who say they know.
fill: Damp things are hung up at once, not the next morning.
fill: Hired things are marked with a green thread so that nobody sells them.
fill: Whoever lends without a signature pays the next round of tea.
fill: The product sheet has the details of the {s} that do not concern hiring.
close: Questions that this page leaves open are settled at the desk.
close: The page on hiring out the {o} is kept in the same folder.
close: Please hang a copy of this page at the hire desk.
# What does it cost?
@ day money 3-27
- Hire costs {x} a day.
- For each day the customer pays {x}.
t How much does it cost to hire the {s} for a day?
t What is the daily hire price of the {s}?
t What does a day of hire cost for the {s}?
t How much does a customer pay a day to hire the {s}?
v What do we charge a day for hiring out the {s}?
e A family wants to borrow the {s} for a single night. What will they owe us for it?
e If somebody takes the {s} on loan, how fast does the bill grow from one day to the next?
@ weekend money 29-64
- A whole weekend, Friday to Monday, costs {x}.
- There is a weekend price of {x}, from Friday to Monday.
t What is the weekend price for hiring the {s}?
t How much does it cost to hire the {s} for a weekend?
t What does a customer pay to hire the {s} from Friday to Monday?
t How much is a weekend of hire for the {s}?
v What do we charge for hiring out the {s} over a weekend?
e Two students want to borrow the {s} on Friday and bring it back on Monday. What is the damage?
e What is our special rate if the {s} is on loan over Saturday and Sunday?
@ deposit money 66-245
- The deposit is {x}, paid back when all is well.
- Customers leave a deposit of {x} at the desk.
t How high is the deposit for hiring the {s}?
t What deposit do customers leave when they hire the {s}?
t How much is the deposit on a hired {s}?
t What is the deposit for the {s}?
v Which deposit do we take for a hired {s}?
e What sum do we keep as security until the borrowed {s} is back?
e The {s} came back from hire in order. How much do I hand back to the customer?
@ late money 2-28
- Every day of delay costs another {x}.
- Whoever is late pays {x} for each extra day.
t What does each day of delay cost for a hired {s}?
t How much does a customer pay for each extra day with a hired {s}?
t What is the late fee a day for the {s}?
t How high is the fee for bringing back a hired {s} late?
v What do we charge for every day that a hired {s} is late?
e Somebody kept the borrowed {s} one day too long. What penalty is due?
e By how much does the bill rise for each day on which the {s} on loan is overdue?
@ cleaning money 4-38
- If it comes back dirty, cleaning costs {x}.
- The cleaning fee is {x} and is taken off the deposit.
t How much is the cleaning fee for a hired {s}?
t What does cleaning cost if a hired {s} comes back dirty?
t What is the cleaning fee for the {s}?
t How much does a customer pay if the hired {s} comes back dirty?
v What do we charge for cleaning a hired {s}?
e The borrowed {s} is covered in mud. What do I keep back for washing it?
e What is the price of returning the {s} from hire in a filthy state?
# How long, and when?
@ longest unit 4-60 days
- Nobody may keep it for more than {x}.
- The longest hire is {x}.
t What is the longest hire of the {s}?
t For how many days can the {s} be hired at most?
t How long may a customer keep a hired {s}?
t How many days is the longest hire of the {s}?
v How long can the {s} be hired?
e Somebody plans a great journey with a borrowed {s}. How much time is that allowed to take?
e What is the maximum time that the {s} can be out on loan?
@ pickup time 8:05-11:30/5
- It can be fetched from {x} on the first day.
- On the first day it is ready at {x}.
t From what time can a hired {s} be fetched?
t When is a hired {s} ready on the first day?
t At what time on the first day can a customer fetch the hired {s}?
t From when on the first day is the hired {s} ready?
v At what time is a hired {s} ready to be fetched?
e The customer who booked the {s} on loan wants to leave early. When may she come by?
e How early in the morning do we hand over the {s} for hire?
@ back time 14:30-19:00/5
- On the last day it has to be back by {x}.
- It is due back at {x} on the last day.
t By what time must a hired {s} be back on the last day?
t When is a hired {s} due back on the last day?
t At what time must a customer bring back the hired {s}?
t Until what time on the last day may a hired {s} come back?
v When on the last day must the hired {s} be returned?
e The hire of the {s} ends today and the customer is stuck in traffic. At what hour does it count as late?
e How late on the final afternoon do we still accept the borrowed {s}?
@ ahead unit 2-27 days
- It should be booked {x} ahead.
- Bookings are needed {x} in advance.
t How many days ahead should the {s} be booked for hire?
t How long in advance must a customer book the {s} for hire?
t How many days in advance are bookings for a hired {s} needed?
t How far ahead should the hire of the {s} be booked?
v How early must the {s} be booked for hire?
e A club wants to borrow the {s}. How soon before the trip do they need to tell us?
e How much notice does the desk want if somebody would like the {s} on loan?
# What else?
@ pool count 3-44 pieces
- All shops together have {x} pieces for hire.
- The hire stock is {x} pieces.
t How many pieces of the {s} do we have for hire?
t How many pieces of the {s} can be hired?
t What is the hire stock of the {s}?
t How many pieces of the {s} are kept for hire?
v How many pieces of the {s} do all shops together hire out?
e A school asks to borrow the {s} for a whole year group. How many could we lend at once?
e What is the total of the {s} in our lending stock?
@ age age 11-25
- Customers have to be at least {x} old.
- The minimum age is {x}, and the desk asks for a card.
t How old must a customer be to hire the {s}?
t What is the minimum age for hiring the {s}?
t From what age can somebody hire the {s}?
t How many years old must a customer be to hire the {s}?
v What age does a customer need to hire the {s}?
e A boy stands at the hire desk and wants the {s}. What age should his card show?
e Up to which birthday must young people wait before we lend them the {s}?
@ person person
- {x} looks after the hire stock and mends what is torn.
- Responsible for it at the hire desk is {x}.
t Who looks after the hire stock of the {s}?
t Who is responsible for hiring out the {s}?
t Which colleague looks after the {s} at the hire desk?
t Who at the hire desk is responsible for the {s}?
v Who takes care of the {s} at the hire desk?
e A borrowed {s} is torn. To whom do I hand it for mending?
e Whose job is it to keep our lending stock of the {s} in order?
"""

REPAIR = """
= repair
title: Repair workshop: {s}
subjects: boot resoling; pole splinting; seam sealing; stove servicing; down washing; mat patching; rope checking; jacket reproofing; zip mending
unknown train: sail stitching; helmet painting
unknown test: kayak welding; hat blocking; saw sharpening; lamp engraving
open faq: The workshop is asked a lot about {s}. These are the answers that everybody should give.
open faq: Answers of the repair workshop on {s}, for the shops and for customer service.
open page: This page explains how the repair workshop handles {s}. Please read it before you promise anything.
fill: Customers often confuse this with {o}, so ask twice what they mean.
fill: Nothing is taken in wet or muddy.
fill: Each job gets a tag with the name of the customer and the shop.
fill: The {t} shop collects the jobs of its neighbours on the way.
fill: The work is done by hand and never looks quite like new.
fill: A {p} has been used as the training piece for years.
fill: What cannot be mended goes back with a friendly letter.
fill: A job that also needs {o} is split into two tags.
fill: Please take a photograph before the thing leaves the shop.
fill: The workshop smells of glue and likes visitors who bring cake.
close: For {o} there is a page of its own.
close: Say thank you to the workshop now and then.
close: Old versions of this page should be thrown away.
# What does it cost?
@ price money 6-74
- The customer pays {x} for the job.
- The price is {x}, materials included.
t How much does {s} cost?
t What is the price of {s}?
t What does the customer pay for {s}?
t How much does the workshop charge for {s}?
v What do customers pay for {s} in the workshop?
e Somebody needs {s} and asks what it will come to. What do I answer?
e What will be on the bill for {s}?
@ express money 75-140
- Express jobs, done within two working days, come to {x} in total.
- Whoever is in a hurry gets the express service for {x} in total.
t What does express service cost for {s}?
t How much is the express price of {s}?
t What does a customer pay for {s} as an express job?
t How much does the express service for {s} come to?
v What is the total price of express {s}?
e For a customer who wants to jump the queue, what is the total for {s}?
e What is charged if {s} is urgent and has to overtake all other jobs?
@ limit money 145-490/5
- Estimates above {x} need the consent of the customer.
- The workshop asks the customer first if an estimate is above {x}.
t Above what sum does an estimate for {s} need the consent of the customer?
t From which sum does the workshop ask the customer before {s}?
t What is the limit for {s} without the consent of the customer?
t Above which estimate does the workshop ask first about {s}?
v From what estimate on does {s} need the consent of the customer?
e How dear may {s} become before we have to phone the owner?
e Up to what amount may the workshop go ahead with {s} unasked?
# How long does it take?
@ time unit 3-45 days
- The work takes {x} from the day it reaches the workshop.
- Customers have their things back after {x}.
t How long does {s} take?
t How many days does {s} take?
t After how many days is {s} done?
t What is the working time for {s} in the workshop?
v How many days should customers wait for {s}?
e A walker leaves soon and needs {s}. How long until her things are ready?
e How long will somebody be without their gear because of {s}?
@ guarantee unit 2-36 months
- We give a guarantee of {x} on the work.
- The work is guaranteed for {x}.
t How long is the guarantee on {s}?
t How many months of guarantee do we give on {s}?
t For how many months is {s} guaranteed?
t What is the guarantee period for {s}?
v How many months does the guarantee on {s} last?
e The result of {s} has failed again. How long do we redo it for nothing?
e For what time after the job is bad workmanship in {s} put right free of charge?
@ kept unit 30-190/5 days
- Things that are not fetched are kept for {x} and then sold.
- We store finished jobs for {x}, no longer.
t How long are finished jobs of {s} kept if nobody fetches them?
t For how many days does the workshop keep things after {s}?
t How many days are things kept after {s} if they are not fetched?
t How long does the workshop store finished jobs of {s}?
v After what time are things sold that nobody fetches after {s}?
e A customer forgot about her things after {s}. How long before they are gone?
e How much time do owners have to collect what was left with us for {s}?
# Who does it, and where?
@ technician person
- {x} does most of this work.
- The specialist for it is {x}, at the long bench.
t Who in the workshop does {s}?
t Who is the specialist for {s}?
t Which colleague does most of the {s}?
t What is the name of the specialist for {s}?
v Who does most of the work in {s}?
e I have a tricky question on {s}. With whom at the long bench should I talk?
e Whose hands do the {s} for us?
@ extension ext
- Questions on running jobs are answered on extension {x}.
- The bench has its own telephone, extension {x}.
t Which extension answers questions on {s}?
t What is the extension for {s}?
t Under which extension do I reach the bench for {s}?
t What number do I dial for questions on {s}?
v How do I reach the bench for {s} by phone?
e I want to ring the workshop to see how far the {s} has got. What do I dial?
e On which internal number can a shop chase up its {s}?
@ shelf code S 11-98 shelf
- Incoming things go on shelf {x}.
- Put new jobs on shelf {x} and not on the floor.
t On which shelf do I put things for {s}?
t Which shelf is for {s}?
t What is the shelf for new jobs of {s}?
t Where do incoming things for {s} go?
v On what shelf do jobs for {s} go?
e I am at the workshop door with something for {s}. Where may I leave it?
e Where should I look for a thing that was handed in for {s} this morning?
@ form pool colours
- The order form is the {x} one.
- Fill in the {x} form, in capital letters.
t What colour is the form for {s}?
t Which colour does the order form for {s} have?
t Which form do I fill in for {s}?
t What colour of form does {s} need?
v Which colour of form is used for {s}?
e I have a stack of coloured order pads here. Which one is right for {s}?
e On what sort of paper is an order of {s} written down?
@ capacity count 4-68 jobs
- The bench can do {x} jobs a week.
- No more than {x} jobs are accepted in a week.
t How many jobs of {s} can the workshop do in a week?
t How many jobs of {s} are accepted in a week?
t What is the weekly number of jobs in {s}?
t How many jobs a week can the bench for {s} do?
v What is the weekly limit of jobs for {s}?
e How many orders fill the week of the people who do {s}?
e How much {s} gets done between Monday and Saturday, counted in orders?
"""

RETURNS = """
= returns
title: Returns policy: {s}
subjects: boots and shoes; tents; rucksacks; jackets and trousers; stoves; electronics; ropes and harnesses; sleeping bags; boats; books and maps
unknown train: bicycles; fishing rods
unknown test: skis; drones; ready meals; cameras
open policy: This policy holds for returns of {s} to any shop or to the warehouse. Other goods have policies of their own.
open policy: How we take back {s}. The policy was agreed with the shops and binds everybody at a till.
open memo: Memo on returns of {s}. Please read it once with care and then again when a customer stands before you.
fill: Stay friendly, even if the story is a strange one.
fill: The policy for {o} differs, so do not quote it from memory.
fill: Goods that were bought as a gift are treated like all others.
fill: Ask for the receipt, and look the order up if there is none.
fill: Things that were plainly used for weeks are not taken back.
fill: A mixed return with {o} is entered as two returns.
fill: The {t} shop had the fewest returns last year and is proud of it.
fill: The reason for the return is written down in the words of the customer.
fill: Nobody has to justify a return, but most people like to.
fill: The box does not have to be the original one.
close: Returns of {o} and {o2} are described elsewhere.
close: This policy is read aloud at the first staff meeting of the year.
close: If the till shows something else, this page is right.
# Time limits
@ period unit 10-120 days
- Customers can return {s} within {x} of the purchase.
- The period for returns is {x}.
t Within how many days can customers return {s}?
t How long can {s} be returned?
t What is the return period for {s}?
t How many days do customers have to return {s}?
v Until how many days after the purchase do we take back {s}?
e Somebody wants to bring back {s} bought a while ago. What is the limit?
e How much time to change their mind do people have after buying {s}?
@ exchange unit 12-150 days
- An exchange for another size or model is possible for {x}.
- Exchanges are accepted for {x}, also without a receipt.
t For how many days can {s} be exchanged?
t How long is an exchange of {s} possible?
t What is the exchange period for {s}?
t How many days do customers have to exchange {s}?
v Until how many days after the purchase can {s} be exchanged?
e A customer wants to swap {s} for another model. How long is that allowed?
e After how long is it too late to trade {s} in for a different size or kind?
@ refund unit 2-26 days
- The money is paid back within {x}.
- A refund reaches the customer after {x}.
t Within how many days is the money for returned {s} paid back?
t How long does a refund for {s} take?
t After how many days does a customer get the money for returned {s}?
t How many days does the refund for returned {s} take?
v After what time is the money for returned {s} paid back?
e A caller sent back {s} and still sees nothing in the bank. What wait is normal?
e How soon will the bank account show it if we accept {s} back?
# Money
@ fee percent 3-32
- If the packing is gone, we keep back {x} of the price.
- Without packing a fee of {x} of the price is due.
t What fee do we keep back for {s} returned without packing?
t How many percent of the price do we keep back if {s} come without packing?
t What is the fee for returned {s} without packing?
t How high is the fee on {s} if the packing is gone?
v What share of the price is kept back for {s} without packing?
e The customer threw the wrapping of the {s} away. How much of the refund is lost?
e What share do people lose if they bring back {s} loose instead of boxed?
@ bonus percent 2-28
- Whoever takes a voucher instead of money gets {x} more.
- The bonus for choosing a voucher is {x}.
t How high is the bonus for choosing a voucher when {s} are returned?
t What bonus does a customer get for taking a voucher for returned {s}?
t How many percent more is a voucher worth for returned {s}?
t What is the voucher bonus for {s}?
v By how many percent is a voucher for returned {s} higher than the money?
e A customer returning {s} wonders whether to take the gift card or cash. What extra does the card bring?
e By how much do we sweeten it if somebody accepts store credit for {s}?
@ label money 2-19
- The label for sending them back costs {x}.
- If it comes back by post, we take {x} for the label.
t How much does the return label for {s} cost?
t What do we take for the return label for {s}?
t What is the price of a return label for {s}?
t How much does a customer pay for the label when {s} come back by post?
v What does a customer pay for the label to return {s}?
e Somebody far away wants to post {s} back to us. What is deducted for the sticker?
e What does the postal way of giving back {s} cost the buyer?
@ cash money 40-480/5
- Up to {x} can be paid out in cash at the till.
- Cash is paid up to {x}, everything above goes to the card.
t Up to what sum is the refund for {s} paid in cash?
t How much can be paid out in cash for returned {s}?
t What is the cash limit for refunds on {s}?
t Up to which sum can a till pay cash for returned {s}?
v How much cash may a till pay out for returned {s}?
e Above what amount must I use the card to give people their money back for {s}?
e Beyond what amount do notes and coins no longer do for a refund on {s}?
# Who decides, and where it goes
@ decides person
- Late cases are decided by {x}.
- {x} decides whether a late return is accepted.
t Who decides on late returns of {s}?
t Who can accept a late return of {s}?
t Which colleague decides on late cases of {s}?
t Who decides whether {s} are taken back after the period?
v To whom do I send late returns of {s}?
e The period for bringing back {s} ended yesterday. Who could make an exception?
e With whom lies the last word on {s} that come back too late?
@ form code R 11-97 form
- Every return is written on form {x}.
- The right form is {x}, with two copies.
t Which form is used for returns of {s}?
t On which form are returned {s} written down?
t What is the number of the form for returned {s}?
t What form do I need for returns of {s}?
v Which form do I fill in when {s} are returned?
e There is a customer with {s} at the desk. What paper do I take out of the drawer?
e I am taking back {s} for the first time. What do I have to fill in?
@ bin code B 10-99 bin
- Returned goods wait in bin {x} until they are inspected.
- Put what comes back into bin {x}.
t Into which bin do returned {s} go?
t Which bin is for returned {s}?
t In what bin do returned {s} wait until they are inspected?
t What is the bin for {s} that come back?
v Where do I put returned {s}?
e I have just accepted {s} at the till. Where should they be dropped off?
e An inspector is looking for {s} that were brought back. Where do they lie?
@ inspection unit 5-70/5 minutes
- The inspection may take {x} for each piece.
- Plan {x} for looking over one piece.
t How long may the inspection of returned {s} take?
t How many minutes should the inspection of returned {s} take?
t How many minutes are planned for looking over returned {s}?
t What time is planned for the inspection of returned {s}?
v How many minutes does the inspection of returned {s} take?
e I have to check {s} that came back. How long may I spend on each?
e How much time for each piece do those have who examine {s} after a return?
"""

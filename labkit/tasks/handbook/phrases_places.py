"""Phrase data of the handbook: pages on shops, delivery zones and events (read by `phrases.py`)."""
# ruff: noqa: E501

from __future__ import annotations

SHOP = """
= shop
title: The {s} shop
subjects: Harrowmere; Thornwick; Elmsgate; Brackenford; Stonehythe; Kelderby; Wexcombe; Oldmarsh; Ravensholt; Fernhollow; Larkhaven; Quillbridge
unknown train: Pinefold; Wintergate
unknown test: Copperhill; Eastmarch; Gorsebury; Nettlebourne
open page: This page is for staff who work at our {s} shop or stand in there for a day.
open page: The {s} shop is one of the branches of Wren & Fell. A newcomer finds the most important things here.
open memo: Memo to everybody on the rota of the {s} shop. Please keep this sheet behind the counter.
fill: Lost property goes into the blue crate under the stairs.
fill: The window display changes with the season and is planned together with the {o} shop.
fill: Staff of the {o} shop may borrow our ladder, and we borrow their steamer.
fill: Customers often ask to see the {p}, so one always stays unpacked.
fill: Please do not prop the back door open, not even in summer.
fill: The kettle in the staff corner belongs to everyone, and so does the washing up.
fill: Parcels that were meant for the {o} shop go on with the next van.
fill: Dogs are welcome in the shop as long as they stay on the lead.
fill: The radio stays off before lunch.
fill: The {p} that hangs above the counter is decoration and not for sale.
close: If something on this page is out of date, tell the editors of the handbook.
close: Please pin a copy of this page to the board in the staff room.
close: The pages of the {o} and {o2} shops are built in the same way.
# Who is who
@ manager person
- {x} manages the {s} shop.
- The manager of the branch is {x}.
t Who manages the {s} shop?
t What is the name of the manager of the {s} shop?
t Who is the manager in {s}?
t Which person runs the {s} shop?
v Who is in charge of the {s} shop?
e I need to speak to whoever heads the {s} branch. Who is that?
e Who has the top job at our branch in {s}?
@ extension ext
- Inside the company the counter is reached on extension {x}.
- Colleagues who want to call the shop dial {x}.
t Which extension reaches the {s} shop?
t What is the extension of the {s} shop?
t Which number do I dial to call the {s} shop?
t Under what extension does the {s} shop answer the phone?
v How can I reach the {s} shop by phone inside the company?
e I want to ring our branch in {s} from my desk. What do I dial?
e On which internal number do they pick up in {s}?
@ firstaider person
- When somebody is hurt, fetch {x}, who is the trained first aider.
- The first aider on site is {x}, whose kit hangs by the stairs.
t Who is the first aider of the {s} shop?
t Who gives first aid at the {s} shop?
t Whom do I fetch in the {s} shop if somebody is hurt?
t What is the name of the first aider in {s}?
v Who looks after injuries in the {s} shop?
e A customer has cut a finger in {s}. Which colleague should treat it?
e Somebody fell off a ladder at our branch in {s}, so who is trained to help?
@ keyholder person
- The spare set of keys is kept by {x}.
- {x} holds the spare keys and lives nearby.
t Who keeps the spare keys of the {s} shop?
t Who holds the spare keys for {s}?
t Who has the second set of keys to the {s} shop?
t Which colleague looks after the spare keys of the {s} shop?
v Whom do I ask for the spare keys in {s}?
e I am locked out of our branch in {s}. Who could let me in?
e Who is able to unlock {s} if the manager has lost the keys?
# Hours and days
@ opens time 8:10-10:20/5
- From Monday to Saturday the doors open at {x}.
- The first customers are let in at {x} on every day but Sunday.
t When does the {s} shop open?
t What time does the {s} shop open in the morning?
t At what time do the doors of the {s} shop open?
t From what time is the {s} shop open on a weekday?
v What is the opening time of the {s} shop?
e How early can a customer walk into our branch in {s}?
e A customer would like to be the first through the door in {s}. When should she come?
@ closes time 17:15-20:00/5
- The doors are shut at {x}, and the last ten minutes belong to the till.
- Closing time is {x}, also on the evening before a holiday.
t When does the {s} shop close?
t What time does the {s} shop close in the evening?
t At what time are the doors of the {s} shop shut?
t Until what time is the {s} shop open?
v What is the closing time of the {s} shop?
e How late can a customer still buy something in {s}?
e When do they lock up for the night at our branch in {s}?
@ stocktaking date 1-11
- The yearly stocktaking is on {x}, and nobody takes leave then.
- Once a year everything is counted: the date for it is {x}.
t On which date is the stocktaking at the {s} shop?
t When does the {s} shop do its yearly stocktaking?
t What is the date of the stocktaking in {s}?
t On what day of the year does the {s} shop count its stock?
v When is everything counted at the {s} shop?
e I want to avoid the annual count in {s} when I plan my leave. Which date is it?
e Which day should I keep free to help count shelves in {s}?
# The building
@ parking count 6-64 parking spaces
- Behind the house there are {x} parking spaces for customers.
- Customers can use {x} parking spaces in the yard.
t How many parking spaces does the {s} shop have?
t How many parking spaces are there at the {s} shop?
t What is the number of parking spaces at the {s} shop?
t How many customers can park at the {s} shop?
v How many cars fit into the yard of the {s} shop?
e A coach party is coming to {s} by car. For how many vehicles is there room?
e How big is the customer car park of our branch in {s}, counted in cars?
@ opened year 1951-2019
- The branch was opened in {x}, as the brass plate by the door says.
- Wren & Fell has been in this building since {x}.
t In which year was the {s} shop opened?
t Since when has Wren & Fell had its shop in {s}?
t What year did the {s} shop open?
t When was the branch in {s} founded?
v In what year did the history of the {s} shop begin?
e A journalist asks how long {s} has had a Wren & Fell. Which year do I give?
e Which year is on the brass plate in {s}?
@ fittingrooms count 2-19 fitting rooms
- There are {x} fitting rooms, each with a stool and a hook.
- Jackets and boots can be tried on in {x} fitting rooms.
t How many fitting rooms are there in the {s} shop?
t How many fitting rooms does the {s} shop have?
t What is the number of fitting rooms in the {s} shop?
t How many customers in the {s} shop can try on clothes at the same time?
v How many cabins for trying on clothes does the {s} shop have?
e For our branch in {s} I must order new changing room curtains. How many cubicles are there?
e How many people could change clothes at once in {s}?
@ assembly pool assembly
- If the alarm goes off, everybody leaves and meets at the {x}.
- The assembly point after a fire alarm is the {x}.
t Where is the assembly point of the {s} shop?
t Where does everybody meet after a fire alarm at the {s} shop?
t What is the assembly point of the {s} shop in case of fire?
t Where do staff of the {s} shop gather when the alarm goes off?
v Where do I go if there is a fire alarm in the {s} shop?
e There is smoke in the stockroom in {s}. To what spot do I lead the customers?
e Once we have evacuated our branch in {s}, where are heads counted?
@ float money 80-395/5
- Each till starts the day with a float of {x}.
- In the morning {x} of change is put into each till.
t How large is the till float in the {s} shop?
t What is the float of each till in the {s} shop?
t How much change does each till of the {s} shop start the day with?
t With how much money does a till in the {s} shop start in the morning?
v How much change do I put into a till of the {s} shop?
e I am cashing up in {s}. What sum has to stay in the drawer for tomorrow?
e How much cash do I count into the drawer before customers arrive in {s}?
"""

ZONE = """
= zone
title: Delivery to the {s} zone
subjects: North Isles; Highland; Coastal; Inner Valley; Border; Lakeland; Southern; Overseas East; Overseas West
unknown train: Desert; Mountain Rail
unknown test: Polar; River Delta; Overseas North; Great Plain
open faq: Questions that customers and staff ask about parcels to the {s} zone, with the answers of the dispatch office.
open faq: The dispatch office collected these questions about the {s} zone so that nobody has to call twice.
open page: This page describes how we deliver to the {s} zone. It replaces the sheet that used to hang by the packing tables.
fill: Which zone an address belongs to is shown in the order as soon as the postcode is known.
fill: Parcels for the {o} zone are packed at the same tables, so read the label twice.
fill: Fragile goods get two layers of paper, never plastic.
fill: A long parcel such as the {p} goes out in a tube.
fill: The rules of the {o} zone look similar but are not the same.
fill: Customers are told by e-mail when the parcel has been handed over.
fill: Please write the order number on the outside and on the inside.
fill: Nobody promises a customer an hour of delivery, whatever the weather.
fill: If a street is missing in the system, ask the {o} desk, which has the big atlas.
close: The price list in the web shop is made from this page.
close: In doubt, weigh the parcel again.
close: Compare the page of the {o} zone before you send mixed orders.
# How long does it take?
@ time range 2-24 days
- A parcel takes {x} to arrive.
- Customers should expect {x} of travel from our door to theirs.
t How long does a parcel to the {s} zone take?
t How many days does delivery to the {s} zone take?
t What is the delivery time for the {s} zone?
t How long do customers in the {s} zone wait for a parcel?
v How many days is a parcel to the {s} zone on the way?
e If I post something to the {s} zone today, how soon will it get there?
e What travel time should I quote to somebody who lives in the {s} zone?
@ cutoff time 10:05-16:55/5
- What is packed by {x} leaves on the same day.
- Orders that come in after {x} wait for the next working day.
t What is the cut-off time for parcels to the {s} zone?
t Until what time does an order for the {s} zone leave on the same day?
t By what time must a parcel for the {s} zone be packed to leave today?
t When is the latest time for same-day dispatch to the {s} zone?
v Until when can a parcel to the {s} zone still go out today?
e A customer in the {s} zone is about to order. By what hour must she click to catch the van?
e How late in the day do we still send things off to the {s} zone?
@ second unit 2-15 days
- If nobody is at home, the driver tries again after {x}.
- A second attempt is made {x} after the first.
t After how many days is a second delivery attempt made in the {s} zone?
t After what time does the driver in the {s} zone try again if nobody is at home?
t How long after the first attempt is the second one in the {s} zone?
t How many days lie between two delivery attempts in the {s} zone?
v After what time is a parcel to the {s} zone brought again?
e Our customer in the {s} zone was out when the van came. How long until it calls again?
e How much time passes in the {s} zone before the courier rings the bell once more?
@ claim unit 4-58 days
- A parcel that never came must be reported within {x}.
- Claims for lost parcels are accepted for {x} after dispatch.
t Within how many days must a lost parcel to the {s} zone be reported?
t How long can a lost parcel to the {s} zone be claimed?
t What is the claim period for lost parcels in the {s} zone?
t How many days does a customer in the {s} zone have to report a lost parcel?
v How soon must a parcel that was lost in the {s} zone be reported?
e Something sent to the {s} zone vanished. How long is the window for telling us?
e After how long is it too late to ask for compensation because a box for the {s} zone disappeared?
# What does it cost?
@ postage money 3-29
- Postage for one parcel is {x}, whatever its size.
- The customer pays {x} for the parcel.
t How much is the postage to the {s} zone?
t What does a parcel to the {s} zone cost?
t How much does a customer pay for delivery to the {s} zone?
t What is the postage for one parcel to the {s} zone?
v What do we charge for a parcel to the {s} zone?
e Somebody from the {s} zone asks what sending will add to the bill. What do I say?
e How high are the shipping costs if the address lies in the {s} zone?
@ free money 35-290/5
- Orders of {x} and more travel free of charge.
- From an order value of {x} we pay the postage ourselves.
t From what order value is delivery to the {s} zone free?
t How much must a customer in the {s} zone order to get free delivery?
t From which sum do we pay the postage to the {s} zone?
t What is the limit for free delivery to the {s} zone?
v How much must an order to the {s} zone be worth to travel free of charge?
e What does a basket have to add up to before the {s} zone gets its parcel for nothing?
e At which total does a customer in the {s} zone no longer pay any shipping?
@ insured money 100-1900/50
- Every parcel is insured for up to {x}.
- The insurance covers losses of up to {x} a parcel.
t Up to what sum is a parcel to the {s} zone insured?
t How much does the insurance of a parcel to the {s} zone cover?
t What is the insured value of a parcel to the {s} zone?
t For how much is each parcel to the {s} zone insured?
v What sum does the insurance pay for a lost parcel to the {s} zone?
e A valuable box on its way to the {s} zone was crushed. What is the most we can get back?
e Above which worth is a shipment to the {s} zone no longer fully covered?
# Who carries it, and how?
@ carrier pool carriers
- The carrier for this zone is {x}.
- All parcels are handed to {x}, who know the roads there.
t Which carrier delivers to the {s} zone?
t Who carries our parcels to the {s} zone?
t What is the name of the carrier for the {s} zone?
t Which company brings parcels to the {s} zone?
v To which carrier do we give parcels for the {s} zone?
e Whose van will pull up when something arrives in the {s} zone?
e Which firm do I phone about a shipment that is stuck in the {s} zone?
@ weight unit 8-48 kg
- A single parcel may weigh up to {x}.
- The carrier refuses anything above {x}.
t How heavy may a parcel to the {s} zone be?
t What is the weight limit for a parcel to the {s} zone?
t Up to how many kg may a parcel to the {s} zone weigh?
t What is the highest weight of a parcel to the {s} zone?
v How much may a parcel to the {s} zone weigh at most?
e I have a huge box for the {s} zone on the scales. Above what weight would it have to be split in two?
e Beyond what load will a shipment for the {s} zone be turned away?
@ label pool colours
- Every parcel gets a {x} label on its short side.
- Use the roll of {x} labels for this zone and no other.
t What colour is the label for the {s} zone?
t Which colour of label does a parcel to the {s} zone get?
t Labels of which colour are used for the {s} zone?
t What colour of label do I use for the {s} zone?
v Which label do I put on a parcel to the {s} zone?
e I am at the packing table with a box for the {s} zone. From which roll do I take the sticker?
e By what colour can I tell that a box goes to the {s} zone?
@ contact person
- Complaints about this zone are handled by {x}.
- {x} in the dispatch office deals with everything that goes wrong.
t Who handles complaints about the {s} zone?
t Who in the dispatch office looks after the {s} zone?
t Which colleague deals with problems in the {s} zone?
t To whom do complaints about parcels to the {s} zone go?
v Whom do I ask if a parcel to the {s} zone goes wrong?
e An angry caller says the {s} zone has been forgotten. Who takes the call?
e Which person sorts things out after trouble with shipments in the {s} zone?
@ form code F 12-96 form
- Customs and ferry papers are not needed, but form {x} is.
- Put form {x} into the pouch on the outside.
t Which form goes with a parcel to the {s} zone?
t What is the number of the form for parcels to the {s} zone?
t Which form do I put into the pouch of a parcel to the {s} zone?
t What form does a parcel to the {s} zone need?
v Which form must travel with a parcel to the {s} zone?
e I am sending goods to the {s} zone for the first time. What paperwork has to be stuck on?
e Which sheet do I fill in before a box for the {s} zone may leave?
"""

EVENT = """
= event
title: {s}: notes for the team
subjects: Moonlight Hike; Knot Evening; Map Morning; Stove Clinic; Beach Clean; Tent Fair; Ridge Run; Paddle Day; Star Camp
unknown train: Kite Festival; Cheese Walk
unknown test: Lantern Parade; Bog Safari; Ice Picnic; Mushroom Ramble
open memo: Memo to all shops. The {s} is back this year, and these are the notes for everybody who helps or sells places.
open memo: To all staff. Customers have begun to ask about the {s}, so here is what has been settled.
open minutes: Minutes of the events group, extract on the {s}. The rest of the minutes is kept in the events folder.
fill: Last year it rained, and nobody minded.
fill: Posters are printed in the same style as those of the {o}.
fill: The {p} will be shown, but nothing is sold on the day.
fill: Whoever helps gets a sandwich and the thanks of the whole company.
fill: The {s} must not be confused with the {o}, which has other rules.
fill: Photographs may be taken if everybody in them agrees.
fill: The {t} shop lends its van for tables and benches.
fill: Customers who want to know more should ask for the leaflet.
fill: Helpers from the {t} shop travel together.
fill: Please do not promise a place that has not been confirmed.
close: The next memo follows when the leaflet has been printed.
close: Ideas for next year go into the box in the canteen.
close: Notes on the {o} are sent round separately.
# When
@ date date 7-10
- The day is {x}, whatever older posters say.
- It has been fixed for {x}.
t On which date is the {s}?
t When does the {s} take place?
t What is the date of the {s}?
t On what day is the {s} held?
v Which date has been fixed for the {s}?
e I would like to take part in the {s} and need to ask for leave. For what day?
e What do I write in my calendar for the {s}?
@ start time 8:05-19:50/5
- It begins at {x} sharp.
- The start is at {x}, and latecomers are not waited for.
t At what time does the {s} begin?
t What time does the {s} start?
t When is the start of the {s}, by the clock?
t At what hour does the {s} begin?
v What is the starting time of the {s}?
e How late may I turn up for the {s} without missing the beginning?
e By what time must everybody be there on the day of the {s}?
@ deadline date 2-6
- Names are taken until {x}.
- The list closes on {x}, and there is no second list.
t Until which date can people sign up for the {s}?
t What is the sign-up deadline for the {s}?
t When does the list for the {s} close?
t By which date must one sign up for the {s}?
v Until when are names taken for the {s}?
e A customer dithers about joining the {s}. What is the last day to say yes?
e From which date on will nobody else be added to the {s}?
@ length unit 45-290/5 minutes
- The whole thing lasts {x}, with a short break.
- It is planned to last {x}.
t How long does the {s} last?
t How many minutes does the {s} last?
t What is the length of the {s}?
t For how many minutes is the {s} planned?
v How many minutes does the {s} take from beginning to end?
e A father wants to know when to collect his son from the {s}. How long will it go on?
e What is the running time of the {s}?
# Who and where
@ leader person
- {x} leads the group and has the last word.
- The leader on the day is {x}.
t Who leads the {s}?
t Who is the leader of the {s}?
t What is the name of the leader of the {s}?
t Which colleague leads the {s}?
v Who has the last word at the {s}?
e Bad weather is coming. Who may call off the {s}?
e Under whose guidance does the {s} stand this year?
@ meeting pool meetings
- Everybody meets at the {x}.
- The meeting place is the {x}, where a flag will stand.
t Where does the {s} meet?
t What is the meeting place for the {s}?
t Where do people meet for the {s}?
t At which place does everybody gather for the {s}?
v Where do I have to go for the {s}?
e A customer signed up for the {s} but has no idea where to find us. What do I tell her?
e Where will our flag stand at the {s}?
@ helpers count 3-29 helpers
- The plan asks for {x} helpers from the shops.
- We need {x} helpers, so please put your name down.
t How many helpers does the {s} need?
t How many helpers are planned for the {s}?
t What is the number of helpers for the {s}?
t How many colleagues must help at the {s}?
v How many helpers do the shops send to the {s}?
e I am drawing up the rota for the {s}. What staffing have they asked for?
e How many of us have to give a hand at the {s}?
# Taking part
@ places count 12-95 places
- There are {x} places, and staff do not count.
- The number of places is {x}.
t How many places are there at the {s}?
t How many people can take part in the {s}?
t What is the number of places at the {s}?
t How many places does the {s} have?
v For how many people is there room at the {s}?
e How many names can I write down before the {s} is sold out?
e How large may the crowd at the {s} become before we turn people away?
@ fee money 2-34
- Customers pay {x} each on the day.
- Taking part costs {x}, which goes to the mountain rescue.
t How much does it cost to take part in the {s}?
t What is the fee for the {s}?
t How much does a customer pay for the {s}?
t What does a place at the {s} cost?
v What do we charge for taking part in the {s}?
e Is the {s} expensive? What would one person have to hand over?
e What sum goes to the mountain rescue for each person at the {s}?
@ bring pool brings
- Everybody has to bring a {x}.
- One thing is not provided: a {x}.
t What must everybody bring to the {s}?
t What do people have to bring to the {s}?
t Which thing must each person bring to the {s}?
t What is not provided at the {s}?
v Which thing do people bring to the {s} themselves?
e I am packing my bag for the {s}. What must not be left at home?
e What will a guest of the {s} be missing if she comes empty-handed?
@ age age 5-18
- The lowest age is {x}, and parents may not argue.
- Nobody younger than {x} can take part.
t What is the lowest age for the {s}?
t How old must one be to take part in the {s}?
t From what age can children take part in the {s}?
t How many years old must a child be to take part in the {s}?
v What is the minimum age for the {s}?
e A mother wants to bring her daughter to the {s}. What age does the girl need?
e Up to which birthday do children have to wait before they may join the {s}?
"""

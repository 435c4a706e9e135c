"""Phrase data of the handbook: pages on teams, suppliers and courses (read by `phrases.py`)."""
# ruff: noqa: E501

from __future__ import annotations

TEAM = """
= team
title: The {s} team
subjects: Bookkeeping; Purchasing; Customer Service; Logistics; Online Sales; Marketing; Payroll; Quality Control; Design; Transport
unknown train: Legal; Photography
unknown test: Catering; Translation; Security; Export
open memo: Memo to new colleagues: this is how you find the {s} team and how it works.
open memo: To everybody who works with the {s} team. The team wrote this itself and asks you to read it before you call.
open page: The {s} team in short, for people who have never met it.
fill: The team shares a printer with the {o} team.
fill: Questions that concern {o} as well should go to both teams in one mail.
fill: Biscuits are welcome at any time.
fill: The door is open unless the red sign hangs on it.
fill: Shops in the south, such as {t}, are visited twice a year.
fill: Please write one mail for one matter.
fill: New people spend their first week in the {t} shop to see how things are sold.
fill: Holiday is planned together with the {o} team so that somebody is always there.
fill: The plant by the window is called Gerald and is watered by whoever sees it first.
fill: The team does not answer questions on behalf of {o}, although it is often asked to.
close: Corrections go to the editors of the handbook.
close: The memo on the {o} team is built in the same way.
close: Please pass this on to whoever joins after you.
# People
@ head person
- The team is led by {x}.
- {x} is the head of the team.
t Who leads the {s} team?
t Who is the head of the {s} team?
t What is the name of the head of the {s} team?
t Which person leads the {s} team?
v Who is in charge of the {s} team?
e To whom do the people in {s} report?
e I want to complain about {s} to their boss. What is the name?
@ deputy person
- The deputy is {x}, who signs when the head is away.
- {x} stands in for the head of the team.
t Who is the deputy head of the {s} team?
t Who stands in for the head of the {s} team?
t What is the name of the deputy in the {s} team?
t Who signs for the {s} team when the head is away?
v Who is second in charge of the {s} team?
e The boss of {s} is on holiday. Who takes over meanwhile?
e Whose signature counts in {s} as long as the boss is ill?
@ mentor person
- Newcomers are looked after by {x}.
- {x} shows new people how everything works.
t Who looks after newcomers in the {s} team?
t Who shows new people in the {s} team how everything works?
t Which colleague looks after new people in the {s} team?
t Whom do newcomers in the {s} team turn to?
v Who helps newcomers in the {s} team?
e I start work in {s} on Monday. Who will take me by the hand?
e A trainee joins {s} next month. Whom should she ask for on her first day?
@ staff count 3-42 people
- Altogether {x} people work here.
- The team has {x} people, some of them part-time.
t How many people work in the {s} team?
t How many people does the {s} team have?
t What is the number of people in the {s} team?
t How large is the {s} team?
v How many people are there in the {s} team?
e I am buying a cake for everybody in {s}. How many slices do I need?
e What is the headcount of {s}?
# Where to find them
@ extension ext
- The team is reached on extension {x}.
- Dial {x} during working hours.
t What is the extension of the {s} team?
t Which extension reaches the {s} team?
t What number do I dial to call the {s} team?
t Under what extension does the {s} team answer?
v How can I reach the {s} team by phone?
e I must talk to {s} straight away. What do I press on my telephone?
e On which internal line does somebody from {s} pick up?
@ desk code D 11-98 desk
- Visitors should go to desk {x} first.
- Letters and parcels are left at desk {x}.
t At which desk do visitors of the {s} team report?
t At what desk do I leave letters for the {s} team?
t Which desk is the front desk of the {s} team?
t To which desk do I go to see the {s} team?
v At which desk does one find the {s} team?
e I have a parcel for {s}. Where in the office do I put it down?
e I am wandering through the office in search of {s}. Where do I go first?
@ costcentre number 1020-9890/10 cost centre
- Its cost centre is {x}.
- Expenses are booked to cost centre {x}.
t What is the cost centre of the {s} team?
t Which cost centre does the {s} team have?
t To which cost centre are expenses of the {s} team booked?
t What cost centre do I enter for the {s} team?
v Which number is the cost centre of the {s} team?
e I am filing a train ticket for somebody from {s}. Against what number does it go?
e Which account number do I write on an invoice that {s} should bear?
# How they work
@ weekday weekday
- The weekly meeting is on {x}.
- Every {x} the whole team sits down together.
t On which day is the weekly meeting of the {s} team?
t On what day of the week does the {s} team meet?
t Which day is the meeting of the {s} team?
t When in the week does the {s} team sit down together?
v On which weekday does the {s} team meet?
e When should I not expect an answer from {s} because they all sit in a meeting? Name the day.
e I would like to be a guest at the weekly round of {s}. Which day do I pick?
@ time time 8:15-15:55/5
- The weekly meeting starts at {x} and is over within the hour.
- They gather for the week's meeting at {x}.
t At what time does the weekly meeting of the {s} team start?
t What time is the meeting of the {s} team?
t When does the weekly meeting of the {s} team begin, by the clock?
t At which hour does the {s} team gather for its meeting?
v What is the starting time of the weekly meeting of the {s} team?
e I am to present something to {s} at their round. By when must I have my laptop plugged in?
e How late can I walk in and still be punctual for the weekly round of {s}?
@ room pool rooms
- Meetings are held in the {x}.
- For meetings the team uses the {x}.
t In which room does the {s} team meet?
t Where does the {s} team hold its meetings?
t Which room does the {s} team use for meetings?
t In what room are the meetings of the {s} team held?
v Where do meetings of the {s} team take place?
e Everybody in {s} has gone to the weekly round. Behind which door are they?
e I was invited to the weekly round of {s} and do not know the building. Where is it held?
@ limit money 150-2950/50
- The team may spend up to {x} without asking.
- Anything above {x} has to be approved by the board.
t How much may the {s} team spend without asking?
t Up to what sum may the {s} team decide alone?
t Above what sum does the {s} team need approval by the board?
t What is the spending limit of the {s} team?
v How much money may the {s} team spend alone?
e Somebody in {s} wants to buy something expensive. From what amount on does the board get involved?
e How big an order can {s} place on its own authority?
@ reply unit 2-72 hours
- Mails are answered within {x}.
- Allow {x} for an answer by mail.
t Within how many hours does the {s} team answer mails?
t How long does the {s} team take to answer a mail?
t How many hours does an answer from the {s} team take?
t After how many hours can I expect an answer to a mail to the {s} team?
v How quickly does the {s} team answer mails?
e I wrote to {s} this morning and heard nothing. After how long may I start to worry?
e How patient must I be after sending a message to {s}?
"""

SUPPLIER = """
= supplier
title: Supplier notes: {s}
subjects: Northfold Textiles; Grayling Cordage; Pelham Buckles; Corvid Metalworks; Saltire Foam; Bramwell Zips; Oakhurst Leather; Lodestar Optics; Crannock Rubber
unknown train: Fallow Paints; Weir Glass
unknown test: Otterburn Wool; Sable Plastics; Tansy Dyes; Quarry Bolts
open minutes: Minutes of the supplier review, extract on {s}. Present were buyers, the warehouse and two shop managers.
open minutes: Supplier review: {s}. The group met in the canteen because all rooms were taken.
open memo: Memo from the buyers on {s}. It sums up what has been agreed and what the warehouse should watch for.
fill: The samples sent in spring were good, apart from the smell.
fill: Somebody proposed to buy from {o} instead, and the group was against it.
fill: The group was shown pictures of the new hall.
fill: Prices are compared with those of {o} once a year.
fill: The colour cards are out of date and will be sent again.
fill: The material goes into the {p} and a few other things.
fill: Nobody remembered who had ordered the green roll.
fill: Relations are good and go back to a chance meeting at a fair.
fill: Mixed pallets with goods of {o} are sent back.
fill: A visit with people from the {t} shop was agreed for next year.
close: Notes on {o} are filed next to these.
close: The group thanked the canteen for the soup.
close: The next review takes place when everybody is back from leave.
# Contacts
@ contact person
- The contact at {s} is {x}.
- On their side {x} looks after us.
t Who is our contact at {s}?
t What is the name of our contact at {s}?
t Who looks after us at {s}?
t Which person at {s} is our contact?
v Whom do I ask for when I call {s}?
e I have {s} on the line and need somebody who knows us. For whom do I ask?
e To which of their people do I address a letter to {s}?
@ buyer person
- In our company {x} is responsible for the account.
- Our own buyer for them is {x}.
t Which of our buyers is responsible for {s}?
t Who in our company is responsible for {s}?
t Who is our buyer for {s}?
t Which colleague buys from {s}?
v Who of us looks after the account of {s}?
e Who here at Wren & Fell haggles with {s}?
e A salesman from {s} stands at reception. Which of us has to come down?
@ account number 10307-98751/7 account number
- Our account number with them is {x}.
- On every order we quote our account number {x}.
t What is our account number with {s}?
t Which account number do we have with {s}?
t Under what account number do we order from {s}?
t Which account number do I quote to {s}?
v What account number goes on an order to {s}?
e The clerk at {s} asks how we are listed in their books. What do I read out to her?
e Which digits identify us as a customer of {s}?
# Delivery
@ lead unit 2-29 weeks
- Goods arrive {x} after the order.
- The lead time is {x}.
t What is the lead time of {s}?
t How long after the order do goods from {s} arrive?
t How many weeks does {s} need for an order?
t How many weeks after the order does {s} deliver?
v How long do we wait for goods from {s}?
e We have run out of everything that {s} makes. If I order today, how soon is it here?
e How far in advance do I have to order so that {s} can be on time?
@ weekday weekday
- Their lorry comes on {x} only.
- Deliveries are taken in on {x}.
t On which day does {s} deliver?
t On what day of the week does the lorry of {s} come?
t Which weekday is the delivery day of {s}?
t On which day are deliveries from {s} taken in?
v When in the week does the lorry of {s} come?
e I draw up the warehouse rota. For which weekday do I find hands to unload {s}?
e Which day of the week can I expect their driver with goods of {s}?
@ gate code G 11-79 gate
- The lorry is sent to gate {x}.
- Unloading takes place at gate {x}.
t At which gate is the lorry of {s} unloaded?
t To which gate is the lorry of {s} sent?
t What gate do we use for {s}?
t Which gate is for deliveries from {s}?
v At what gate does {s} unload?
e The driver of {s} asks by phone where to reverse in. What do I say?
e Where around the warehouse should I wait for pallets from {s}?
@ pallets count 4-66 pallets
- One delivery brings at most {x} pallets.
- We accept up to {x} pallets at a time.
t How many pallets does {s} bring at most?
t How many pallets from {s} do we accept at a time?
t What is the largest number of pallets in a delivery from {s}?
t Up to how many pallets may {s} bring in one delivery?
v How many pallets can come from {s} at a time?
e How much floor do I have to clear, counted in pallets, before {s} arrives?
e {s} wants to send everything in one go. Above how many pallets do we say no?
# Terms
@ minimum money 250-4950/50
- They do not accept orders below {x}.
- The smallest order is worth {x}.
t What is the smallest order that {s} accepts?
t Below which sum does {s} not accept orders?
t What is the minimum order value of {s}?
t How much must an order to {s} be worth at least?
v What is the lowest order value at {s}?
e I only need a few bits from {s}. How much will I have to spend anyway?
e From what amount does {s} bother to take our business?
@ discount percent 2-38
- We get a trade discount of {x}.
- The discount agreed with them is {x} on list prices.
t What trade discount do we get from {s}?
t How many percent of discount does {s} give us?
t What discount on list prices did we agree with {s}?
t How high is our discount with {s}?
v Which discount does {s} give us?
e By how much does {s} cut its list prices for us?
e I have the catalogue of {s} in my hand. What may I take off to find our price?
@ payment unit 6-90 days
- Invoices are due after {x}.
- We pay within {x} of the invoice.
t After how many days are invoices from {s} due?
t Within how many days do we pay {s}?
t What is the payment period for {s}?
t How long do we have to pay an invoice from {s}?
v After what time must invoices from {s} be paid?
e A bill from {s} landed on my desk this morning. How long may it lie there?
e How much credit, counted in time, does {s} give us?
@ complaint unit 3-65 days
- Faulty goods have to be reported within {x}.
- Complaints are accepted for {x} after delivery.
t Within how many days do faulty goods from {s} have to be reported?
t How long does {s} accept complaints?
t What is the period for complaints to {s}?
t How many days do we have to report faulty goods to {s}?
v How long after delivery does {s} accept complaints about faulty goods?
e We opened a box from {s} late and found rubbish. For how long can we still protest?
e How quickly do we have to check what {s} has sent, before it counts as accepted?
@ contract monthyear
- The contract runs until {x}.
- The contract has to be renewed in {x}.
t Until when does the contract with {s} run?
t When does the contract with {s} end?
t When must the contract with {s} be renewed?
t In which month does the contract with {s} end?
v What is the last month of the contract with {s}?
e In what month of what year are we free of {s} again?
e When can we walk away from {s} at the earliest?
"""

COURSE = """
= course
title: Training: the {s} course
subjects: First Aid; Boot Fitting; Till Basics; Ladder Safety; Forklift; Complaint Handling; Avalanche; Waxing; Fire Marshal
unknown train: Juggling; Sign Language
unknown test: Night Photography; Mountain Weather; Beekeeping; Public Speaking
open memo: Memo to all shop managers. The {s} course is offered again, and this is what you need to know to send people.
open memo: To all staff. Whoever wants to take the {s} course should read this first.
open page: The {s} course is one of the courses that the company runs itself. This page is kept by the training office.
fill: Nobody has to know anything beforehand.
fill: The {o} course is a different one and does not count in its place.
fill: Travel from far shops such as {t} is paid for.
fill: Lunch is soup, and there is enough of it.
fill: Those who took the {o} course last year will know some of the faces.
fill: The {p} is used for practice and gets rougher every year.
fill: Bring something to write with.
fill: Questions may be asked at any point and usually are.
fill: People who do not come and do not say so annoy everybody.
fill: The certificate is printed on thick paper and looks well on a wall.
close: The {o} course has its own page.
close: The training office hopes to see you there.
close: Suggestions for the course are collected after each round.
# The course
@ trainer person
- The trainer is {x}.
- {x} teaches it, with a lot of patience.
t Who teaches the {s} course?
t Who is the trainer of the {s} course?
t What is the name of the trainer of the {s} course?
t Which colleague teaches the {s} course?
v Who is the teacher of the {s} course?
e I have to miss the {s} course and want to say sorry. To whom?
e Who will stand at the front when we learn {s}?
@ length unit 2-38 hours
- It takes {x} in all.
- The course lasts {x}, spread as needed.
t How long is the {s} course?
t How many hours does the {s} course take?
t What is the length of the {s} course?
t How many hours long is the {s} course?
v How many hours does the {s} course last?
e I am planning cover for somebody who takes the {s} course. For what amount of working time?
e How much of my time will {s} training eat up?
@ room pool rooms
- It is held in the {x}.
- The course meets in the {x}.
t In which room is the {s} course held?
t Where is the {s} course held?
t Which room does the {s} course use?
t Where does the {s} course meet?
v In what room does the {s} course take place?
e I am late for {s} training and run down the corridor. Which door do I open?
e Where should I put out chairs for the {s} training?
@ weekday weekday
- The course day is always {x}.
- Courses begin on a {x}.
t On which weekday is the {s} course?
t On what day of the week does the {s} course begin?
t Which day of the week is the course day for {s}?
t On which day is the {s} course always held?
v What weekday is the {s} course on?
e When in the week must I keep people free for {s} training?
e My shifts go by the day of the week. Which one clashes with {s} training?
@ start time 7:35-14:45/5
- It starts at {x}.
- The first lesson begins at {x}.
t At what time does the {s} course start?
t What time does the {s} course begin?
t When does the first lesson of the {s} course begin, by the clock?
t At which hour does the {s} course start?
v What is the starting time of the {s} course?
e By what hour must I be in my seat for {s} training?
e How early do I have to arrive so as not to miss anything of {s}?
# Taking part
@ seats count 5-48 seats
- There are {x} seats.
- The number of seats is {x}, and we do not add chairs.
t How many seats are there in the {s} course?
t How many people can take the {s} course at a time?
t What is the number of seats in the {s} course?
t How many seats does the {s} course have?
v For how many people is there room in the {s} course?
e I would like to send my whole shop to {s} training. How large a group will fit?
e At how many names do I close the list for {s} training?
@ booking ext
- Places are booked on extension {x}.
- To book, call extension {x}.
t Which extension do I call to book the {s} course?
t What is the extension for booking the {s} course?
t On which extension are places in the {s} course booked?
t What number do I dial to book a place in the {s} course?
v Where do I call to book the {s} course?
e My colleague wants to join {s} training. Which internal line takes her name?
e I have to cancel my place in {s} training by telephone. What do I key in?
@ fee money 15-195/5
- Each shop is charged {x} a person.
- The shop pays {x} for every person it sends.
t How much is a shop charged for the {s} course?
t What does the {s} course cost a shop for each person?
t What does a shop pay for each person it sends to the {s} course?
t How much does one place in the {s} course cost?
v What is the price of the {s} course for a shop?
e If I let one of my team do {s} training, what is taken from our budget?
e How expensive is {s} training a head?
# The test
@ passmark percent 41-95
- The test is passed with {x} of the points.
- To pass, one needs {x} of the points.
t How many percent of the points does one need to pass the {s} course?
t What is the pass mark of the {s} course?
t With how many percent of the points is the test of the {s} course passed?
t What share of the points is needed to pass the {s} course?
v Which share of the points does one need in the test of the {s} course?
e How well do I have to do in the exam to earn the {s} certificate?
e From which result on do I get my {s} certificate?
@ retry unit 4-80 days
- Those who fail can try again after {x}.
- A second attempt is possible after {x}.
t After how many days can one try the test of the {s} course again?
t How long must one wait after failing the {s} course?
t How many days must pass before a second attempt in the {s} course?
t After what time can somebody who failed the {s} course try again?
v How many days later is a second attempt possible in the {s} course?
e I messed up the exam in {s}. How soon may I resit?
e What is the shortest gap between two exams in {s} for the same person?
@ renewal unit 5-60 months
- The certificate has to be renewed after {x}.
- The certificate is valid for {x}.
t After how many months must the certificate of the {s} course be renewed?
t For how many months is the certificate of the {s} course valid?
t How long is the certificate of the {s} course valid?
t After what time must the certificate of the {s} course be renewed?
v How many months does the certificate of the {s} course last?
e I passed {s} training some time ago. How old may my pass get before it runs out?
e After what time does a pass in {s} become worthless?
@ booklet code C 14-97 booklet
- Everybody should read booklet {x} first.
- The text used is booklet {x}.
t Which booklet belongs to the {s} course?
t What is the number of the booklet for the {s} course?
t Which booklet should I read before the {s} course?
t What booklet is used in the {s} course?
v Which booklet do I need for the {s} course?
e I want to prepare for {s} training. What should I ask for at the office library?
e Which of the office brochures is worth reading on the eve of {s} training?
"""

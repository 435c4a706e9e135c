"""Phrase data of the voice family: what customers write, and the sentences that answer it.

A matter starts with "##", its id (topic, dash, name) and the kinds of product it fits. Lines: ">" a message of train and
validation, "x" a message that only test has, "=" a fact that answers, "+" a step that follows from it. Letters after the mark say which message a fact or a step fits
(one that has the same letter); without letters it fits all messages of the matter.
Slots: `{my} {your} {the}` the product with that word, `{a}` with "a", "an" or "a pair of", `{p}` alone;
`{is} {has} {does} {was} {it} {they} {its} {this} {s} {es}` agree with it; `{trip} {country} {who} {colour}` from POOLS.
"""
# ruff: noqa: E501

from __future__ import annotations

from dataclasses import dataclass

from labkit.tasks.tickets.grammar import PRODUCTS

KINDS = {
    "tent": "Kestrel Heron Plover Curlew Lark Rook",
    "pack": "Tarn Beck Fjord Creek Brook Delta",
    "bag": "Otter Badger Stoat Weasel",
    "mat": "Moss Peat",
    "stove": "Ember Cinder Ochre",
    "pot": "Kiln Basalt Slate Quartz Onyx Pebble",
    "lamp": "Amber Comet Orbit Nova Pulsar",
    "coat": "Gale Squall Mistral Drizzle Thunder",
    "top": "Frost Alder",
    "cloth": "Birch Larch Rowan",
    "hand": "Granite Lichen Cedar Thistle",
    "shoe": "Heath Moor",
    "wood": "Maple Walnut Elm",
    "tool": "Spruce Bison Beaver",
    "watch": "Lynx Indigo Umber",
}
KIND = {product: kind for kind, words in KINDS.items() for product in PRODUCTS if product.split()[0] in words.split()}

POOLS = {
    "trip": ["a week in the hills", "our holiday by the sea", "a long weekend in the forest", "a hut tour",
             "a cycling tour", "a school trip", "a trip along the coast", "my first solo hike"],
    "country": ["Norway", "Ireland", "Portugal", "Austria", "Finland", "Denmark", "Italy", "Poland"],
    "who": ["my son", "my daughter", "my partner", "my sister", "my father", "a friend", "my niece", "my neighbour"],
    "colour": ["green", "blue", "grey", "dark red", "black", "orange", "sand", "brown"],
}

_TEXT = """
## delivery-where any
> Where is the parcel with {my}? I ordered {it} a while ago and have heard nothing since.
> Can you tell me how far along the delivery of {my} is?
> The tracking page for {my} has not changed for a while. Is the parcel lost?
> I am still waiting for {my}, and the courier has not shown up yet.
> {my} {is} paid for, but is the parcel on its way?
> No sign of {my} so far. Has the parcel left your warehouse?
> I need {my} for {trip}. How is the delivery coming along?
x I keep looking into my letterbox for {my}, but the courier never comes.
x Has the van with {my} got lost? I have seen no delivery so far.
x How can I find out where the parcel with {my} is right now?
x It has gone quiet since I ordered {my}. Is the courier still on the road?
= {your} {is} on the way with the courier.
= {your} {has} left our warehouse, and the parcel is with the courier.
= The parcel with {your} has been handed to the courier and is moving.
= {your} {is} packed, and the courier has taken the parcel along.
= The courier has scanned the parcel with {your}, so {they} {is} on the way.
+ Please have a look at the tracking link.
+ You can follow each stop with the tracking link in our shipping mail.
+ Please open the tracking link in your shipping mail to see where it is now.
+ We will ask the courier for the latest and pass it on to you.
+ Please send us the order number, and we will trace the parcel.

## delivery-absent any
> The courier rang while I was out and took {my} away again. What happens with the parcel now?
> I missed the delivery of {my}. Can the courier come again?
> There was a card in my letterbox about the parcel with {my}. Where do I collect it?
> I am rarely at home. Could the courier leave {my} with a neighbour?
> Can you have {my} delivered to a parcel shop instead of my flat?
> I will be away when {my} should be delivered. What can I do?
x Nobody was in when the van came with {my}. Will the courier try again?
x May the courier put {my} in the shed if I am out?
x I was in the garden and did not hear the bell, so {my} went back with the courier.
= The courier still has {your} in safe hands.
= After a missed delivery, the courier keeps the parcel with {your} at the nearest depot.
= {your} {is} safe, as the courier takes a missed parcel back to the depot.
= A neighbour or a parcel shop can take the parcel with {your} in for you.
= The courier is able to bring {your} a second time or leave the parcel nearby.
+ You can pick a new time online.
+ You can choose a new time or a parcel shop through the tracking link.
+ Please use the card from the courier to pick a place that suits you.
+ You can name a neighbour or a safe place on the tracking page.
+ We can give the courier a note about a safe place if you tell us one.

## delivery-abroad any
> Do you also deliver to {country}? I would like to order {the}.
> I live in {country}. Is delivery of {the} possible?
> Can the parcel with {my} go to an address in {country}?
> I want to give {the} to {who} in {country}. Do you ship there?
> Would you deliver {the} straight to {who}, who has moved to {country}?
> What does delivery of {the} to {country} involve?
x My address is in {country}. Can you still send me {the}?
x Is {country} on the list of places to which you ship {the}?
x How would {the} get to {who} in {country}? Do you post parcels there?
= We deliver {the} abroad as well.
= We do deliver {the} across Europe, with the same courier as at home.
= {the} can travel abroad, and the parcel is tracked all the way.
= Delivery abroad is no trouble, and {the} travel{s} in the same sturdy box.
= We ship {the} to most countries in Europe, and the courier knows the way.
+ Please choose the country in the basket.
+ Please enter the foreign address in the basket to see the shipping cost.
+ You can choose the country in the basket before you pay.
+ We can check your address for you if you send us the postcode.

## delivery-address any
> I typed the wrong house number when I ordered {my}. Can the parcel still go to the right address?
> Can I still change the delivery address for {my}?
> I have moved house, and the parcel with {my} is going to my old address.
> Please send {my} to my office instead of my home. Is the address easy to change?
> The postcode on my order for {the} is wrong. Will the parcel get here all the same?
> Could {my} be delivered to {who} instead of me?
x My old street is still on the order for {my}. Can you correct where it is delivered?
x The street in my order for {the} is spelt wrong, will the courier find me?
x I would rather have {my} sent to my place of work. Is there time to change the address?
= The address for {your} is not final yet.
= The address for {your} is easy to change while the parcel is still in our warehouse.
= Until the courier has {your}, we are able to put a new address on the parcel.
= The courier is also able to send the parcel with {your} on to another address.
= {your} {is} still in our warehouse, so the address on the parcel is not final.
+ Please send us the right address.
+ Please send us the full address and the order number.
+ You can change the address in your account, under your orders.
+ We will correct the label as soon as we have the right street and postcode.

## returns-how any
> How do I return {my}?
> I would like to send {my} back. What do I have to do?
> What are the steps if I want to return {the}?
> There was no return label in the box with {my}. How do I get one?
> {my} {is} not for me. Can I send {it} back?
> Where do I find the return form for {my}?
> Who collects {my} if I want to send {it} back?
x I would rather not keep {my}. How do I get {it} back to you?
x Could you tell me how returns work? It is about {my}.
x Which carrier takes {my} if I give {it} back to you?
x After one look I know that {my} will have to go back. What now?
= Returning {your} takes one label.
= Returning {your} is simple, and one label covers the whole way back to us.
= {your} may come back to us, and the return label is in your account.
= We take {your} back, and the return form is a single page.
= A return of {your} takes a label, a box and a trip to the parcel shop.
+ You can print the label at home.
+ You can print the return label from your account and drop the box at a parcel shop.
+ Please pack everything in one box and stick the return label over the old one.
+ We can mail you a label if you have no printer.
+ Please put the return form in the box, so that we know what it is about.

## returns-used any
> I have used {my} once. May I still return {it}?
> I threw the box away. Can I send {my} back without it?
> I cut off the tags of {my}, but {they} do{es} not suit me. Is a return still possible?
> Can I return {my} after trying {it} in the garden?
> {my} got a little muddy on the first walk. Would you take {it} back?
> The packaging of {my} is torn. Can I still send {it} back?
x I no longer have the carton of {my}. Do you take {it} back in another one?
x {my} {has} been outdoors for one evening. Is it too late for a return?
x Would you accept {my} back even though I tried {it} on a short walk?
= A trial does not rule out a return of {your}.
= {your} may come back after a short trial, as long as {they} {is} clean.
= We take {your} back in any sturdy box, so the old one is not needed for a return.
= A short trial at home does not rule out a return of {your}.
= For a return, the state of {your} counts for more than the box.
+ Please send us two photos first.
+ Please wipe off any dirt and add a note about what did not suit you.
+ You can use any box that keeps the contents from moving about.
+ Please send us two photos first, so that we can tell you what to expect.
+ We will look at everything when it arrives and write to you then.

## returns-gift any
> I got {the} as a gift and already own one like it. Can I return {it}?
> {who} gave me {the}, but I do not need {it}. How does a return work without the receipt?
> Can I swap {the} that I was given for something else? I have no receipt.
> {my} {was} a birthday present, and I want to send {it} back quietly. Is that possible?
> I bought {the} for {who}, who does not want {it}. May we send {it} back?
> Two people gave me {the}. Can one go back?
x I was given {the} and have no order number. Do you take {it} back?
x {who} would like to return {the} that I gave as a present. What do we do?
x {the} I unwrapped last week {is} not my thing. Can a gift go back?
= A gift like {the} may come back too.
= A gift may come back too, and the giver hears nothing of the return of {the}.
= We take {the} back without a receipt, as the order is easy to find by name.
= A return of {the} works for gifts as well, in exchange for something you like.
= {the} may come back to us even if somebody else has placed the order.
+ Please tell us who placed the order.
+ Please send us the name of the person who ordered, and we will find the order.
+ You can choose something else of the same price in our shop.
+ We can mail you a return label to any address you like.

## returns-late any
> Our trip fell through, so I no longer need {the}. May {they} go back unopened?
> I have changed my mind about {my}. Is a return all right?
> I bought {the} in haste and want to return {it} unused.
> {the} turned out not to be what I need, so {they} should go back. Is that fine?
> I found {my} in the cupboard, still in the box. Can I send {it} back after so long?
> {who} has lent me the same thing, so I would like to return {my}.
x Plans have changed and {my} can go back to you, still sealed. Is that fine?
x {my} never left the box. Would you still have {it} back?
x I am having second thoughts about {my}. Can {they} go back?
= {your} may come back unused.
= An unused return is welcome, and {your} can go back on our shelf as new.
= {your} may come back unopened, with no questions about the reason for the return.
= Plans change, and we are fine with taking {your} back unused.
= We take {your} back in the sealed box, and the return label is quickly made.
+ You can start that in your account.
+ You can start the return in your account with a few clicks.
+ Please leave the seal on the box, which saves us both some work.
+ We will mail you a return label if you give us the order number.

## sizing-between coat top cloth shoe hand
> I am between two sizes. Which one should I take in {the}?
> {does} {the} run small or large? I am never sure about my size.
> Which size of {the} do you suggest if my usual one is sometimes tight?
> I usually wear medium. Is that the right size for {the} too?
> Should I go one size up with {the}?
> I have two sizes of {the} in my basket and cannot decide.
x My usual size is not the same in every brand. How {does} {the} turn out?
x Half a size is all that separates the two I like. Which one for {the}?
x Would you go for the smaller or the larger size with {the}?
= {the} fit{s} true to size.
= {the} run{s} true to size, with a little room to move.
= {the} {is} cut close, so the larger of two sizes is more comfortable.
= Most people wear their usual size in {the}.
= Between two sizes of {the}, the larger one leaves room on long days.
+ You can try both at home.
+ Please compare your measurements with the size table below the photos.
+ You can order both sizes and send one back.
+ We suggest trying the larger one at home first, in the evening.
+ Please measure a piece that fits you well and compare it with the table.

## sizing-wide shoe
> My feet are wide. {does} {the} come in a wide fit?
> {my} press{es} at the toes. Is there a wider fit?
> My heel slips in {my}. Is that the wrong size?
> How much room should my toes have in {the}?
> {is} {the} narrow? I have had trouble with the fit of other pairs.
> I wear thick insoles. Which size of {the} fits with them?
x My toes touch the front of {my} when I walk downhill. Do I need another size?
x Will somebody with broad feet fit into {the}?
x {my} pinch{es} a bit across the top. Is that how the fit should be?
= {the} run{s} a little wide.
= {the} {is} of medium width, and the fit gets softer over the first walks.
= {the} {has} a roomy front, so that the toes stay free on the way downhill.
= A thumb of space in front of the toes is the right fit for {the}.
= {the} fit{s} wide feet when the laces are eased over the front.
+ Please measure both feet in the evening.
+ Please try {it} on in the evening, when feet are a little larger.
+ You can lace the upper part firmly and leave the front loose.
+ We suggest half a size more if you wear thick socks.
+ Please measure both feet while standing and go by the longer one.

## sizing-layers coat
>m Does a thick jumper fit under {the}, or do I need a larger size?
>m I want to wear {the} over a fleece. Which size fits?
>m Is the fit of {the} loose enough for climbing?
>t I have long arms. Is there a long size of {the}?
>t Which size of {the} fits a tall and slim person?
>t {is} {the} cut for men or women? I need the right size for {who}.
xm Will I still get my layers under {the} if I take my usual size?
xm I would wear {the} over other clothes. Should the size be larger?
xt My back is long. {does} {the} fit tall people?
=m The fit of {the} leaves room for a layer.
=m {the} leave{s} room for one warm layer in your usual size.
=m The fit of {the} is easy at the shoulders, so moving is no trouble.
=m For thick layers under {the}, one size more is the better fit.
=t {the} {is} cut for everybody and also come{s} in a long size.
=t The long size of {the} has longer sleeves and a longer back.
=t {the} come{s} in a short and in a long size, for men and women alike.
+ We suggest your usual size.
+ Please measure your chest and your arms and compare them with the size table.
+m You can try {it} on at home over your thickest layer.
+t You can choose the long size on the product page.

## sizing-gift coat top cloth shoe hand
> I want to give {who} {the}. What if the size is wrong?
> Which size of {the} fits a fourteen-year-old who is still growing?
> {who} does not know what size to take in {the}. How do we find out?
> I can only guess the size of {who}. {is} {the} hard to fit?
> Can {who} change the size of {the} after the birthday?
> How do I measure {who} in secret to get the right size of {the}?
x {the} should be a surprise for {who}, but I do not know the size. Any idea?
x What do I do if {the} turn{s} out too small for {who}?
x {who} wears hand-me-downs, so no size is known. Which one do I take in {the}?
= {the} fit{s} most people in a middle size.
= {the} {is} forgiving in size, and a wrong guess is easily put right.
= Sizes of {the} are easy to swap while {they} {is} unworn.
= A well-fitting old piece tells the size of {the} best.
= {the} come{s} in many sizes, and the middle ones fit most people.
+ You can swap the size later.
+ You can look at the label of something that already fits and use the size table.
+ Please leave the tags on, so that the size can be swapped.
+ We can guess along with you if you tell us the height.

## care-cloth tent pack
>w How do I clean {my} after a muddy weekend?
>w Can {my} go into the washing machine?
>m There is mould on {my}. How do I wash it off?
>d What is the best way to dry and store {my} for the winter?
>m {my} smell{s} musty. How do I clean {it}?
>w Which soap may I use to wash {my}?
xw Bird droppings have left a stain on {my}. How do I clean that?
xw Is a washing machine too rough for {my}?
xd Where and how should I keep {my} dry until spring?
=wm {your} should be washed by hand.
=w {your} like{s} lukewarm water, mild soap and a soft sponge, but no washing machine.
=w The coating of {your} stays intact when {they} {is} washed by hand.
=w Most stains on {your} come off with a soft brush and a little soap.
=m A wash with mild soap and a long airing rid {your} of mould.
=m Mould and musty air leave {your} with a gentle wash by hand.
=d {your} store{s} best when clean, dry and loosely folded.
=d A dry and airy place is the best care for {your}.
=d {your} keep{s} well in a cotton sack, once {they} {is} fully dry.
+ Please let everything dry in the shade before you pack {it} away.
+wm Please use mild soap and cool water.
+wm You can hang {it} up in the bathroom and rinse {it} with the shower.
+w We suggest a soft brush for the dry dirt before any water is used.
+d You can hang {it} up loosely in a cupboard.
+d We suggest a cotton sack instead of the tight one.

## care-down bag
>w How do I wash {my} without ruining the filling?
>d May {my} go into the tumble dryer?
>d {my} {has} lost loft. How should I dry {it}?
>s How should I store {my} between trips?
>w Is dry cleaning all right for {my}?
>d {my} got wet on {trip}. How do I dry {it} properly?
xd The filling of {my} has gone lumpy after a wash. What do I do?
xw Which detergent may I use to wash {my}?
xw {my} smell{s} of campfire. Can {they} be washed at all?
=w Gentle washing is fine for {your}.
=w {your} may be washed in a large machine, with mild soap and little spin.
=w Airing {your} after each trip makes washing a rare thing.
=w {your} take{s} a gentle wash better than dry cleaning.
=d Slow drying brings the loft of {your} back.
=d The filling of {your} gets its loft back when {they} dr{ies} slowly in a warm place.
=d {your} may be dried in a large machine at low heat.
=s {your} should be stored loose and dry, never squeezed.
=s A roomy sack is the best storage for {your}.
=s {your} keep{s} {its} loft when {they} {is} stored loose and dry.
+w Please use soap for down and rinse {it} twice.
+wd Please give {it} plenty of time to dry.
+wd You can put two clean tennis balls into the dryer to loosen the filling.
+d We suggest shaking {it} now and then while {they} dr{ies}.
+s We suggest a large cotton sack for the storage at home.
+s Please air {it} well before you put {it} away.
+s You can hang {it} in a dry cupboard.

## care-coat coat top cloth
>w How often should I wash {my}?
>w Which soap is right for washing {my}?
>i Can I iron {my} after washing?
>s How do I get a resin stain out of {my}?
>w At what temperature may {my} be washed?
>w {my} {has} come out of the wash stiff. What did I do wrong?
xw Is fabric softener bad for {my}?
xi May {my} go into the dryer after a wash?
xw How do I clean {my} after {trip}?
=w {your} may be washed gently.
=w {your} can be washed at thirty degrees with mild soap and no softener.
=w Washing now and then does {your} good, with mild soap and no softener.
=w A gentle wash keeps {your} soft, while softener clogs the cloth.
=i {your} dr{ies} quickly on the line, away from strong sun.
=i Great heat is bad for {your}, while drying on the line is fine.
=i {your} should dry on the line, with low heat at the most.
=s Most stains leave {your} with a drop of soap and a soft brush.
=s Resin gets hard in the freezer and is then easy to brush off {your}.
=s {your} may be cleaned spot by spot with mild soap.
+w Please leave out the softener.
+w Please close all zips and turn {it} inside out before the wash.
+ws We suggest a second rinse, so that no soap stays in the cloth.
+i Please hang {it} up while {they} {is} still damp.
+i You can use low heat at the very end.
+i We suggest a shady place for the line.
+s You can test the soap on the inside first.
+s Please rub gently and in one direction.

## care-shoe shoe
>c How do I clean {my} after a wet walk?
>l Which wax should I use on {my}?
>d May I put {my} on the radiator to dry?
>l How do I care for the leather of {my}?
>c {my} {is} caked with mud. What is the right way to clean {it}?
>c Salt has left white marks on {my}. How do I clean {it}?
xd {my} {is} soaked from {trip}. How should I dry {it}?
xl Do I have to wax {my} before the first walk?
xl What care {does} {my} need over the winter?
=c {your} come{s} clean with lukewarm water and an old brush.
=c Salt and mud wash off {your} with lukewarm water.
=c A damp cloth and a soft brush get {your} clean.
=d Slow drying is best for {your}.
=d {your} dr{ies} best with newspaper inside, away from the radiator.
=d Great heat makes the leather of {your} brittle, so slow drying is kinder.
=l A thin coat of wax keeps the leather of {your} supple.
=l The leather of {your} lasts longest when {they} {is} cleaned before {they} {is} waxed.
=l Some plain wax is all the care that {your} need{s}.
+c Please use a soft brush.
+c We suggest taking the insoles and laces out before you clean {it}.
+d Please change the newspaper once or twice while {they} dr{ies}.
+d You can take the insoles out meanwhile.
+d Please keep {it} away from stoves and strong sun.
+cl You can rub some wax in with a soft cloth and brush it an hour later.
+l Please clean {it} before you wax {it}.
+l We suggest a thin coat two or three times a year.

## care-pot pot stove
>b How do I clean burnt food off {my}?
>b Can {my} go into the dishwasher?
>f {my} {has} a white film inside. How do I clean {it}?
>f {my} smell{s} of old tea. What helps?
>r How do I keep {my} free of rust?
>b Is steel wool too rough to clean {my}?
xb Soot has turned {my} black. How do I clean that?
xb May I scrub {my} with sand when I am out camping?
xb What do you use to clean {my} after a long season?
=b {your} should be cleaned by hand.
=b {your} come{s} clean with hot water, a little soap and a soft sponge.
=b A dishwasher, sand or steel wool is hard on {your}, so a soft sponge is best to clean {it}.
=f A spoon of baking soda and hot water gets {your} clean overnight.
=f Hot water and a little vinegar get {your} clean.
=f A film or a smell leaves {your} with baking soda and a good rinse.
=r {your} stay{s} free of rust when {they} {is} wiped dry after use.
=r A wipe after use and a dry cupboard keep {your} free of rust.
=r {your} should be dry when {they} go{es} into the cupboard.
+b Please use a soft sponge.
+b Please let {it} cool down fully before any water touches the metal.
+bf You can soak the rest for an hour and wipe it off with a cloth.
+b We suggest a wooden spoon for the burnt parts, as metal leaves scratches.
+f Please rinse {it} well afterwards.
+f We suggest hot water and some patience.
+r Please wipe {it} with a drop of oil before the winter.
+r You can let {it} dry upside down.
+r We suggest a dry and airy shelf.

## care-wood wood
>c How do I clean {my} after a summer in the garden?
>o Which oil is right for the wood of {my}?
>w May {my} stand in the rain, or is that bad for the wood?
>c A glass has left a ring on {my}. How do I clean it off?
>o {my} {has} turned grey. How do I get the colour of the wood back?
xo The wood of {my} feels dry and rough. What care does it need?
xw Can I leave {my} outside in the winter if I oil {it}?
xc Red wine has run over {my}. How do I get it clean?
=c {your} come{s} clean with mild soap, wiped along the grain.
=c A damp cloth and mild soap get {your} clean.
=c Most marks leave the wood of {your} with mild soap and a little oil.
=o Some oil is all the care {your} need{s}.
=o A little linseed oil gives the wood of {your} its colour back.
=o The wood of {your} likes linseed oil, thin and often.
=w {your} can stand in light rain but like{s} a dry place in winter.
=w Oil keeps the rain out of {your}, and a dry place does the rest.
=w {your} should be dry in winter, while a summer shower does no harm.
+co Please use a soft cloth for it.
+co Please let the wood dry well before you oil it.
+c You can take a ring off with very fine sandpaper and some oil.
+o We suggest two thin coats of oil and a soft cloth.
+w Please put {it} under a roof for the winter.
+w You can oil {it} twice a year.
+w We suggest a cover that lets the air through.

## repair-zip tent pack bag coat
> The zip of {my} is stuck. Can you repair {it}?
> The slider has come off the zip of {my}. Do you fix that?
> A few teeth are missing from the zip of {my}. Is that worth mending?
> Do you have a spare zip for {my}?
> The zip of {my} opens behind the slider. Can your workshop do something?
x The pull tab of the zip on {my} has snapped off. Could you mend it?
x Can I get the zip of {my} replaced at your workshop?
x The zip of {my} no longer closes. Is there a fix?
= Our workshop mends {your}, zip and all.
= Our workshop mends zips, and the zip of {your} is one we keep as a spare.
= A zip is no reason to give up on {your}, as our workshop changes sliders often.
= The slider of {your} is worn, and a new one is a small repair.
= {your} can be mended, because the rest of the zip is usually sound.
+ Please send us a photo of the zip.
+ Please send us a photo of the slider from the front and the side.
+ You can rub a little candle wax on the teeth for now.
+ We will mail you the address of the workshop and a form for the repair.

## repair-tear tent pack coat mat bag
> A thorn has torn {my}. Can you mend {it}?
> There is a small hole in {my}. How do I patch it?
> A seam of {my} has come open. Does your workshop repair that?
> Sparks have burnt a hole in {my}. Is a repair possible?
> Do you sell patches for {my}?
> The dog has bitten into {my}. Can {they} be mended?
x There is a rip in {my} after {trip}. Can it be stitched?
x Could you patch {my}, or is that beyond repair?
x A branch went through {my}. Do you fix such damage?
= Our workshop can patch {your}.
= A small hole in {your} is easy to mend with a patch from both sides.
= Our workshop stitches tears in {your}, and the repair holds for years.
= {your} can be mended, as tears along a seam are our daily work.
= A patch keeps the hole in {your} from growing until the repair.
+ Please send us a photo of the spot.
+ Please clean and dry the spot, then cut the patch with round corners.
+ You can send us a photo with a coin beside the hole for scale.
+ We will tell you what the repair involves once we have seen a photo.

## repair-sole shoe
>o The sole of {my} is coming off. Can you glue it?
>o {my} need{s} new soles. Does your workshop do that?
>h A hook has broken off {my}. Can you repair it?
>h The seam at the heel of {my} has split. Is it worth a repair?
>s Do you have spare laces and insoles for {my}?
xo The tread of {my} is worn smooth. Can {they} get new soles?
xh An eyelet has torn out of {my}. Do you mend such things?
xo The front of the sole of {my} flaps when I walk. What can be done?
=oh Our workshop mends {your} every season.
=o Our workshop gives {your} new soles, and the upper part stays as you know it.
=o A loose or worn sole on {your} is a common repair for our workshop.
=h Hooks, eyelets and seams of {your} can be mended, as we keep the spare parts.
=oh {your} {is} worth the repair as long as the leather is sound.
=s We keep spare laces and insoles for {your}.
=s Spare laces for {your} are in our drawer, and insoles too.
=s Laces and insoles of {your} are spares that we always keep.
+oh Please send us a photo of the damage.
+oh Please clean {it} and send us a photo of each side.
+o You can keep the sole in place with a strap until the repair.
+oh We will tell you what the workshop can do once we see the photos.
+s Please tell us the size and the colour.
+s You can add them to your next order.
+s We will put a set aside for you if you like.

## repair-device lamp stove watch
>g {my} no longer work{s}. Can you repair {it}?
>s A small part of {my} has come loose. Do you have a spare?
>g {my} fell on a rock and now rattle{s}. Can your workshop have a look?
>s I have lost a screw of {my}. Do you sell spare parts?
>g Is it possible to repair {my}, or do I have to buy new?
>g {my} stopped working on {trip}. Can {they} be fixed?
xg {my} gave up on me last night. Do you fix such things yourselves?
xs A piece of {my} has broken off. Can I get a spare one?
xg Can somebody in your workshop take a look at {my}?
=g Our workshop mends {your}.
=g Our workshop opens and repairs {your}, and most parts are in our drawer.
=g {your} can be repaired in most cases, as every part has a spare.
=s A loose part of {your} is a small repair for our workshop.
=s We keep spare parts for {your}, down to the last screw.
=s A spare part for {your} is easy to find in our drawer.
+s Please send us a photo of the part.
+s You can find the number of the part on the drawing in the manual.
+s We will look for the part and post it to you.
+g Please describe what happens when you use {it} and add a photo.
+g We will test {it} in the workshop and tell you what we find.
+g You can send {it} to us with a short note about the damage.

## stock-out any
> {the} {is} sold out. When will {they} be back in stock?
> Will you get {the} in again?
> Can you tell me when {the} {is} available again?
> I have been looking at {the} for weeks, and {they} {is} always out of stock. Any news?
> Do you still make {the}, or {is} {they} gone for good?
> Can I reserve {the} before {they} {is} back in stock?
x Every time I look, {the} {is} gone. Are you getting more?
x Is there a waiting list for {the}?
x {the} {has} vanished from the shop. Will {they} be available once more?
= {the} {is} sold out for now.
= {the} {is} out of stock for now, and the next batch is being made.
= We do make {the} again, and the new stock is already in the works.
= {the} sold faster than we thought, so our shelf is empty for now.
= More stock of {the} is planned, as {they} {is} part of our standard range.
+ You can join the waiting list online.
+ You can leave your mail address on the product page to hear of new stock.
+ We will put you on the waiting list if you wish.
+ Please look at the product page, where the stock is always up to date.

## stock-colour coat top cloth hand pack tent bag
> Do you have {the} in {colour}?
> Will {the} in {colour} be in stock again?
> I can only find {the} in one colour. Are others available?
> {is} {the} still available in {colour}?
> The photo shows {the} in {colour}, but I cannot choose that. Is this colour out of stock?
> Which colours of {the} do you have in stock?
x I have set my heart on {the} in {colour}. Do you have any left?
x Is there {a} in {colour} anywhere in your warehouse?
x Does the range of colours for {the} include {colour}?
= This colour of {the} is in stock.
= {the} {is} in stock in three colours, all shown on the product page.
= This colour of {the} is out of stock, while the others are on the shelf.
= The colours of {the} change with each batch, and a few are still in stock.
= We have {the} in stock, and each colour is listed with its own photo.
+ You can choose the colour on the product page.
+ You can choose the colour below the photo to see what is available.
+ We will put you on the list for that colour if you wish.
+ Please tell us your second choice, and we will look on the shelf.

## stock-shop any
>p Do you have {the} in your shop, or only online?
>p Can I see {the} in the shop before I buy?
>p {is} {the} in stock at the shop in the old town?
>g {is} {the} in stock in larger numbers? We need several for {trip}.
>p Could you put {a} aside for me in the shop?
>g {is} {the} available in numbers for a group of eight?
xp Before I take the train to your shop: {is} {the} on the shelf?
xg Our club wants {the} twelve times. Is that more than you have?
xp May I pick {the} up in person, and {is} {they} there right now?
=p We keep {the} in stock.
= We keep {the} in stock in the shop and in the warehouse.
=p {the} {is} available in the shop, where {they} may be tried as well.
=p {the} {is} on our shelf in the shop, and the warehouse has more in stock.
=g {the} {is} in stock in numbers that are enough for a group.
=g We have enough of {the} in stock for groups and clubs.
+p We can put one aside for you.
+p We can put one aside at the till under your name.
+ You can see on the product page what the shop has in stock.
+g Please tell us how many you need, and we will count them.
+g We can set the whole number aside for you.

## complaint-broke any
> {my} broke on the very first day. I expected better from you.
> I am disappointed: {my} fell apart on {trip}.
> This is the second time that {my} let{s} me down. What is going on with your quality?
> For that price {my} should last longer than one trip. I am not happy.
> I have to complain about {my}. A part came off as soon as I used {it}.
> {my} look{s} cheaply made, and the finish is already peeling. That is poor quality.
x A single outing was enough to finish off {my}. That is a poor show.
x I had high hopes for {my}, and all I got was trouble.
x Frankly, {my} {is} the worst buy of my year.
= This is a fault in {the}.
= This is not the quality we want from {the}, and we would like to put it right.
= {the} should not let you down on a trip, and we take the fault seriously.
= A fault like this in {the} should not happen, and our workshop wants to know why.
= You had good reason to expect better quality from {the}.
+ Please send us a photo of it.
+ Please send us a photo of the damage and the order number.
+ We will look at {it} in the workshop and find a fair answer with you.
+ You can send {it} to us as {they} {is}, with a short note about what happened.

## complaint-leak tent coat shoe pack
> {my} leak{s}. I was soaked after half an hour and I am angry.
> You call {the} waterproof, but the rain came straight through. I am disappointed.
> Water got into {my} on {trip}, and all my things were wet. That is not good enough.
> I have to complain: {my} let{s} in water at the seams.
> After one shower {my} {was} wet inside. I feel let down.
x {the} kept out the rain about as well as a paper bag. I want to complain.
x I woke to cold water because of {my}. How can that be?
x So much for waterproof: {my} drip{s} at every seam.
= Rain inside of {your} is a fault.
= Rain should stay outside of {your}, and we want to put this right.
= A wet trip is the last thing {the} should cause, and we take the problem seriously.
= {your} should keep the rain out, so there is a fault that we want to find.
= Water at the seams of {the} is a fault, and it is ours to look into.
+ Please show us the wet spots in a photo.
+ Please send us photos of the spots where the water came in.
+ We will test {it} under the hose in our workshop and tell you the result.
+ You can let {it} dry and send {it} to us with a note about the wet spots.

## complaint-wrong any
> I ordered {the} and got something else. How can that happen?
> You have sent {my} in the wrong colour, for the second time.
> {my} arrived used and dirty. I paid for a new product.
> There is a part missing from {my}. I am annoyed.
> The box was open, and {my} {was} scratched. That is not acceptable.
> I paid for {the}, but the box was half empty. I want an explanation.
x Somebody at your end mixed things up: this is not {the} I ordered.
x {my} came with somebody else's hair on {it}. Not what I call new.
x I opened the box of {my} and found half of what was promised. Explain that, please.
= Something went wrong with {your}.
= The box with {your} was packed wrongly, and that is our fault.
= {your} should have come new and complete, and we will put that right.
= Something went wrong when we packed {your}, and we are looking into it.
= This is our fault, as {your} left us without a proper check.
+ Please send us a photo of the contents.
+ Please keep everything as it is and send us a photo of the box.
+ We will pick the right parts by hand and send them on.
+ You can keep the box, as we only need a photo and the order number.

## complaint-service any
> I have written to you three times about {my}, and nobody answers. That is poor service.
> Your man on the telephone was rude when I asked about {my}.
> I waited half an hour on the telephone because of {my}, then the line went dead.
> Your shop sent me away when I brought {my} in. I am disappointed.
> Everybody in your team tells me something else about {my}. I am fed up.
> I feel that nobody cares about my problem with {my}.
x My last four mails about {my} seem to have gone into a black hole.
x Is this how you treat customers? I only had a simple question about {my}.
x The person at your till rolled her eyes when I showed her {my}.
= You met with a poor answer about {the}.
= Nobody should have to ask twice about {the}, and we want to put that right.
= You had a fair question about {the} and met with a poor answer.
= Our service let you down over {the}, and we are looking into how.
= Your problem with {the} should have been taken seriously from the start.
+ Please tell us the main points again.
+ Please give us the main points once more, and one of us will stay with it.
+ We will talk about it with the team, so that it does not happen again.
+ You can send us the number of your order, and we will read the whole thread.

## thanks-product any
> I just wanted to say that {my} {is} wonderful. Thank you!
> {my} came along on {trip} and never let me down. Thanks for making {it}!
> After three years {my} still look{s} like new. Well done!
> {who} and I love {the}. Thank you for such good work.
> I have never owned anything better than {my}. Thanks!
> We got through a storm with {my}. Many thanks to the people who made {it}!
x {my} made {trip} so much nicer. A big thank you from all of us!
x No question today, just praise: {my} {is} a joy to use.
x Hats off to your team, {my} {has} survived my family!
= We are glad that you like {the}.
= We are glad that {your} serve{s} you well.
= It is good to hear that {your} {is} out and about with you.
= Your kind words about {the} go straight up on the workshop wall.
= Reading this about {the} was a joy for everybody here.
+ You can send us a photo.
+ You can send us a photo for our wall if you like.
+ We will read your message to the people who made it.
+ Please tell us about the next trip too.

## thanks-service any
> Thank you for the quick help with {my}. Your colleague was so patient.
> Thanks to your advice I found the right way to use {my}. Great service!
> {my} arrived well packed and with a nice note. Thank you!
> You were so kind when I had trouble with {my}. Many thanks!
> I want to thank the person who chose {the} with me in the shop.
> Thank you for taking the time to explain {the} to {who}.
x Please pass on a thank you to the lady who showed me {the}.
x A short note of praise: your help with {my} was first-rate.
x I called about {my} and got such friendly help. Thanks a lot!
= We are pleased that {the} found a good home.
= We are glad that the help with {your} was of use.
= It is good to hear that {your} got off to a good start.
= Your kind words about {the} made the whole team smile.
= The colleague who knows {the} so well was pleased to read this.
+ We will tell the team.
+ We will pass your words on to the team.
+ You can find more of our tips in the guide on the product page.
+ Please say hello when you are in the shop again.

## thanks-repair tent pack bag coat shoe stove lamp
> {my} came back from your workshop like new. Thank you!
> Thank you for mending {my}. I thought {they} {was} lost for good.
> The repair of {my} is so neat that I cannot find the spot. Thanks!
> You have given {my} a second life. Many thanks from me and {who}!
> I am so glad that I still have {my}. Thank you for the good work in the workshop.
x What a lovely job you did on {my}! I can hardly tell where the damage was. Thank you!
x {my} {is} back in action because of you. All the best to the workshop, and thanks!
x I did not think {my} could be saved. My thanks to the hands that did it.
= Our workshop is glad about {your}.
= We are glad that {your} {is} back with you and in one piece.
= It is good to hear that the work on {your} turned out well.
= Our workshop is proud of {your} and was pleased to read this.
= Your kind words about {your} made the people in the workshop smile.
+ We will tell the people at the bench.
+ We will pin your message to the wall above the sewing machine.
+ You can send us a photo from the next trip if you like.
+ Please enjoy every walk with the old friend.

## advice-cold bag top mat
> {is} {the} warm enough for a night below zero?
> I feel the cold easily. {is} {the} right for me?
> Would you recommend {the} for winter trips?
> I am planning {trip} in autumn. {is} {the} warm enough?
> How warm {is} {the}? I sleep and sit outside a lot.
x Would I freeze with {the} in late October?
x {who} is always cold. {is} {the} a good choice?
x What is the coldest night for which you would pick {the}?
= {the} suit{s} cool nights.
= {the} suit{s} cool nights from spring to autumn, and {is} on the light side for deep frost.
= {the} {is} warm enough for most people down to the first frost.
= {the} {is} a good choice for cool days, together with one more layer.
= For nights below zero, {the} work{s} well with an extra layer.
+ We suggest one warm layer more.
+ We suggest one warm layer more if you feel the cold easily.
+ You can add a liner or a second layer to make {it} warmer.
+ Please tell us where you are going, and we can be more precise.

## advice-rain coat tent shoe
> {is} {the} good enough for a week of rain?
> Would you recommend {the} for Scotland in autumn?
> I need something for heavy rain. {is} {the} the right choice?
> {does} {the} cope with wind and sleet as well?
> Which do you recommend for wet weather, {the} or something stronger?
> I am planning {trip}, and it may pour. {is} {the} enough?
x If it pours for days, would you trust {the}?
x Can {the} handle a proper storm?
x I am off to the wet side of {country}. Is it wise to take {the}?
= {the} cope{s} well with rain.
= {the} cope{s} well with steady rain and gusty wind.
= {the} {is} a good choice for wet weather, as all seams are taped.
= {the} suit{s} showers and wind, while days of heavy rain are the limit.
= For a wet week, {the} {is} what our own team would pick.
+ You can test that under the garden hose.
+ We suggest a fresh coat of spray before a long and wet trip.
+ You can test {it} under the garden hose before you go.
+ Please take a dry bag along for the things that must stay dry.

## advice-light tent pack stove pot lamp
> {is} {the} light enough for a long hike?
> I count every gram. Would you recommend {the}?
> {is} {the} the right size of load for two people on {trip}?
> Would you take {the} on a bike tour, or something lighter?
> {is} {the} too heavy for {who}, who is twelve?
> Which would you choose for {trip}, {the} or something smaller?
x My old one weighs a ton. {is} {the} a better choice for walking?
x Would {the} be too much to carry on {trip}?
x For two people and little space, would you pick {the}?
= {the} suit{s} long walks.
= {the} {is} a good choice for long walks, as {they} pack{s} small and light.
= {the} {is} light for what {they} do{es}, and suit{s} one or two people.
= For most walks, {the} strike{s} a good balance of weight and comfort.
= {the} {is} on the sturdy side, so a base camp suits {it} better than a long march.
+ Please compare the weights in the table.
+ We suggest packing {it} once with everything else to see how that feels.
+ You can compare the weights in the table on the product page.
+ Please tell us how far you walk, and we can suggest one that suits you.

## advice-start tent stove bag pack watch tool
> I am new to camping. Would you recommend {the}?
> {is} {the} a good choice for a beginner?
> What should I know before I choose {the}?
> Would {the} make a good present for {who}?
> I want something that lasts. Would you choose {the}?
> {is} {the} easy to use? I would be the only one to handle {it}.
x {who} has caught the camping bug. {is} {the} a sensible choice?
x I know nothing about such things. Would {the} suit me?
x Do you think {the} {is} right for somebody with two left hands?
= {the} suit{s} beginners well.
= {the} {is} a good choice to start with, as there is little to get wrong.
= {the} suit{s} beginners and stay{s} useful for many years.
= For a first season, {the} {is} what we recommend to our own families.
= {the} {is} easy to use, and a short guide comes in the box.
+ You can try {it} out in the garden.
+ We suggest a trial in the garden before the first trip.
+ You can watch the short film on the product page to see {it} in use.
+ Please tell us what you have planned, and we can be more precise.
"""


@dataclass(frozen=True)
class Matter:
    """One thing customers write about, with the sentences that answer it."""

    name: str
    topic: str
    kinds: tuple[str, ...]  # of the products it fits
    train: tuple[tuple[str, str], ...]  # (phrasing id, template)
    test: tuple[tuple[str, str], ...]
    letters: dict[str, str]  # of each phrasing
    facts: tuple[tuple[str, str], ...]  # (letters, sentence)
    steps: tuple[tuple[str, str], ...]

    def fitting(self, pool: tuple[tuple[str, str], ...], phrasing: str) -> list[str]:
        """The facts or steps that fit a message of a phrasing."""
        return [text for letters, text in pool if not letters or self.letters[phrasing] in list(letters)]


def _matters() -> dict[str, Matter]:
    found = {}
    for block in _TEXT.strip().split("\n\n"):
        head, *lines = block.removeprefix("## ").split("\n")
        name, *kinds = head.split()
        marked: dict[str, list[tuple[str, str]]] = {mark: [] for mark in ">x=+"}
        for line in lines:
            letters, _, text = line[1:].partition(" ")
            marked[line[0]].append((letters, text.strip()))
        train = [(f"{name}-{i:02d}", *pair) for i, pair in enumerate(marked[">"], 1)]
        test = [(f"{name}-x{i:02d}", *pair) for i, pair in enumerate(marked["x"], 1)]
        found[name] = Matter(
            name,
            name.partition("-")[0],
            tuple(KINDS) if kinds == ["any"] else tuple(kinds),
            tuple((phrasing, text) for phrasing, _, text in train),
            tuple((phrasing, text) for phrasing, _, text in test),
            {phrasing: letters for phrasing, letters, _ in train + test},
            tuple(marked["="]),
            tuple(marked["+"]),
        )
    return found


MATTERS = _matters()
TOPICS = list(dict.fromkeys(matter.topic for matter in MATTERS.values()))

# What may stand around the main sentence of a message; the second list of each pair serves only test.
GREETINGS = (["Hello,", "Hi,", "Good morning,", "Hello Wren & Fell,", "Dear team,", "Hi there,", "Good evening,"],
             ["Greetings,", "Hello everybody,", "Good day to you,", "Hey,"])
CLOSINGS = (["Thanks in advance.", "Kind regards, a long-time customer", "Many thanks for your help.",
             "I look forward to your answer.", "Best wishes", "Thank you.", "A short answer would be enough."],
            ["Cheers", "Yours, a friend of the hills", "It would be nice to hear from you."])
ASIDES = (["I have been a customer for years.", "I found nothing about it on your site.",
           "My old one came from a different shop.", "A friend told me to ask you.",
           "I hope I am writing to the right place.", "You helped me once before.",
           "I have looked in the manual already.", "I am not good at these things."],
          ["I tried to call, but the line was busy.", "I am writing from my telephone, so I keep it short.",
           "My wife says I should just ask.", "This is my first mail to you."])

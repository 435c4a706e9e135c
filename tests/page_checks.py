"""What a notebook that is open in JupyterLab must be for its reader, and acting on it as a reader does.

Each check returns the faults it finds, one line of text each. `page` is a page of `browser.opened`.
"""

from playwright.sync_api import TimeoutError as TooSlow

CONTRAST = 4.5  # WCAG 2.1, level AA, for text of any size
CELLS = "window.jupyterapp.shell.currentWidget.content.widgets"

ERRORS = f"""() => {CELLS}""" """.flatMap((cell, i) => {
    if (cell.model.type !== 'code') return [];
    const tags = cell.model.getMetadata('tags') ?? [];
    return cell.model.outputs.toJSON().flatMap(output => {
        const text = [output.text ?? []].flat().join('');
        const failed = output.output_type === 'error' && !tags.includes('raises-exception');
        if (failed) return [`error: cell ${i + 1}: ${output.ename}: ${output.evalue}`];
        return text.includes('Traceback (most recent') ? [`error: cell ${i + 1}: prints a traceback`] : [];
    });
})"""

# JupyterLab writes alt="Image" where HTML or markdown gives none.
IMAGES = """() => [...document.querySelectorAll('.jp-Notebook .jp-RenderedHTMLCommon img, ' +
        '.jp-Notebook .jp-OutputArea-output img')].flatMap((image, i) => {
    const found = [], box = image.getBoundingClientRect();
    const name = `image ${i + 1} (${(image.alt || 'no alt').slice(0, 40)})`;
    if (!image.alt.trim() || image.alt === 'Image') found.push(`alt: ${name}`);
    const seen = image.checkVisibility({opacityProperty: true, visibilityProperty: true});
    const wide = image.naturalWidth, scale = box.width / wide;
    if (!seen || !image.complete || !wide || box.width < 2 || box.height < 2) {
        found.push(`invisible: ${name}`);
    } else if (scale > 1.01 || scale < 0.5 || Math.abs(box.height / image.naturalHeight / scale - 1) > 0.02) {
        found.push(`size: ${name} is drawn ${box.width} x ${box.height}`);
    }
    return found;
})"""

HEADINGS = """() => {
    const heads = [...document.querySelectorAll('.jp-Notebook :is(h1, h2, h3, h4, h5, h6)')];
    const found = [];
    let before = 0;
    for (const head of heads) {
        const level = Number(head.tagName[1]);
        if (level > before + 1) found.push(`heading: h${before} is followed by h${level}: ${head.innerText}`);
        before = level;
    }
    const first = heads.filter(head => head.tagName === 'H1').length;
    return first === 1 ? found : [...found, `heading: ${first} of level 1`];
}"""

# Colours are read off a canvas: Chromium may state them in any CSS notation. Paper under all of it is white.
LOW_CONTRAST = """least => {
    const brush = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const known = new Map();
    const rgba = colour => {
        if (!known.has(colour)) {
            brush.clearRect(0, 0, 1, 1);
            brush.fillStyle = colour;
            brush.fillRect(0, 0, 1, 1);
            const [r, g, b, a] = brush.getImageData(0, 0, 1, 1).data;
            known.set(colour, [r, g, b, a / 255]);
        }
        return known.get(colour);
    };
    const over = (top, under, opacity = 1) => {
        const a = top[3] * opacity;
        return [0, 1, 2].map(i => top[i] * a + under[i] * (1 - a));
    };
    const light = rgb => {
        const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = rgb.map(v => linear(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const contrast = element => {
        const chain = [];
        for (let at = element; at; at = at.parentElement) chain.unshift(getComputedStyle(at));
        let paper = [255, 255, 255], opacity = 1;
        for (const style of chain) {
            opacity *= Number(style.opacity);
            paper = over(rgba(style.backgroundColor), paper, opacity);
        }
        const ink = over(rgba(chain.at(-1).color), paper, opacity);
        const [dark, bright] = [light(ink), light(paper)].sort((a, b) => a - b);
        return (bright + 0.05) / (dark + 0.05);
    };
    const apart = 'script, style, mjx-assistive-mml';
    const found = new Map(), roots = '.jp-Notebook :is(.jp-OutputArea-output, .jp-RenderedMarkdown)';
    for (const root of document.querySelectorAll(roots)) {
        const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
        while (walk.nextNode()) {
            const text = walk.currentNode.data.trim(), element = walk.currentNode.parentElement;
            if (!text || !element.checkVisibility({visibilityProperty: true})) continue;
            if (element.closest(apart)) continue;
            const value = contrast(element), shown = value.toFixed(2);
            const key = `${element.tagName} ${element.className} ${shown}`;
            if (value < least && !found.has(key)) found.set(key, `contrast: ${shown}: ${text.slice(0, 40)}`);
        }
    }
    return [...found.values()];
}"""

CONTROLS = ".jp-OutputArea-output .jupyter-widgets :is(select, input, [role=slider], button)"
# What a control's output area says and shows; a typed number or a tick is no reaction of it.
NAME = """e => (e.closest('.widget-inline-hbox')?.innerText ?? '').split('\\n')
    .map(line => line.replace(/\\u200b/g, '').trim()).find(line => line) ?? e.type"""
SHOWN = """element => {
    const area = element.closest('.jp-OutputArea');
    return area.innerText + [...area.querySelectorAll('img')].map(image => image.src).join();
}"""


FOLD = "open => document.querySelectorAll('.jp-Notebook details').forEach(fold => { fold.open = open; })"


def faults(page):
    """Everything that is wrong with what the page shows, in folds too."""
    page.evaluate(FOLD, True)
    found = [page.evaluate(script) for script in (ERRORS, IMAGES, HEADINGS)]
    found.append(page.evaluate(LOW_CONTRAST, CONTRAST))
    page.evaluate(FOLD, False)
    return [fault for one in found for fault in one]


ENDED = """models => {
    const failed = models.some(model => model.outputs.toJSON().some(o => o.output_type === 'error'));
    const wanted = models.filter(model => model.sharedModel.getSource().trim());
    return failed || wanted.every(model => model.executionCount && model.executionState !== 'running');
}"""
AGAIN = "(model, before) => model.executionCount > before && model.executionState !== 'running'"


def run_all(page, seconds):
    """Clear all outputs, choose Run All Cells in the menu, and wait for the end or for the first error."""
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    page.locator(".lm-MenuBar-item", has_text="Run").first.click()
    page.locator(".lm-Menu .lm-Menu-item[data-command='runmenu:run-all']").click()
    page.wait_for_function(
        f"() => ({ENDED})({CELLS}.map(cell => cell.model).filter(model => model.type === 'code'))",
        timeout=seconds * 1000,
    )
    page.wait_for_timeout(1000)  # the last outputs are drawn


def run_cell(page, index, source=None, seconds=60):
    """Click into a cell, type `source` over what stands there (if given), press Shift+Enter.

    Returns the text of its output.
    """
    cell = page.locator(".jp-Notebook .jp-Cell").nth(index)
    before = page.evaluate(f"i => {CELLS}[i].model.executionCount", index)
    cell.locator(".cm-content").first.click()
    if source is not None:
        page.keyboard.press("Control+A")
        page.keyboard.insert_text(source)
        typed = page.evaluate(f"i => {CELLS}[i].model.sharedModel.getSource()", index)
        assert typed == source, f"the editor holds something else than was typed:\n{typed}"
    page.keyboard.press("Shift+Enter")
    page.wait_for_function(
        f"([i, before]) => ({AGAIN})({CELLS}[i].model, before ?? 0)",
        arg=[index, before],
        timeout=seconds * 1000,
    )
    page.wait_for_timeout(300)
    return cell.locator(".jp-OutputArea").first.inner_text().strip()


def dead_controls(page, seconds=15):
    """(count, faults): go through the controls of all widgets with Tab, change and change back each.

    A fault is a control that Tab does not reach, or whose change alters nothing else that is shown.
    """
    controls, found = page.locator(CONTROLS), []
    for i in range(controls.count()):
        control = controls.nth(i)
        name = control.evaluate(NAME)
        if i == 0:
            control.focus()
        else:
            page.keyboard.press("Tab")
        if not control.evaluate("element => element === document.activeElement"):
            found.append(f"keyboard: Tab does not reach {name}")
            control.focus()
        before = control.evaluate(SHOWN)
        there, back = _keys(control)
        try:
            _press(page, there)
            _until(page, control, before, "!==", seconds)
            if back:
                _press(page, back)
                _until(page, control, before, "===", seconds)
        except TooSlow:
            found.append(f"keyboard: nothing reacts to {name}")
    return controls.count(), found


def _keys(control):
    """Two lists of keys: one changes a control, the other changes it back (empty for a number).

    A closed list gets no arrow keys in JupyterLab, which moves to another cell; the space bar opens it.
    A number stays: the calculator's fused loss rightly changes nothing at batch 1, and does at batch 2.
    """
    kind, last = control.evaluate("e => [e.type, e.selectedIndex === e.length - 1]")
    if kind == "select-one":
        ways = ["Space", "ArrowUp", "Enter"], ["Space", "ArrowDown", "Enter"]
        return ways if last else ways[::-1]
    return (["Space"], ["Space"]) if kind == "checkbox" else (["ArrowUp"], [])


def _press(page, keys):
    for key in keys:
        page.keyboard.press(key)
        page.wait_for_timeout(200)  # a list opens


def _until(page, control, before, relation, seconds):
    page.wait_for_function(
        f"([element, before]) => ({SHOWN})(element) {relation} before",
        arg=[control.element_handle(), before],
        timeout=seconds * 1000,
    )

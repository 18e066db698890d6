// Functions that run in the page, each by itself: what a person sees there.

export function watchPolicy() {
  window.refusedByPolicy = [];
  document.addEventListener("securitypolicyviolation", (event) =>
    window.refusedByPolicy.push(`policy: ${event.violatedDirective} ${event.blockedURI}`));
}

export function state() {
  const visible = (node) => node.checkVisibility();
  return {
    // of the evaluation's examples, by the line that each names
    rows: [...document.querySelectorAll("article")].filter(visible).map((row) =>
      Number(/line (\d+)/.exec(row.innerText.replace(/\s+/g, " ").toLowerCase())?.[1])),
    said: [...document.querySelectorAll("[role=status]")].map((node) => node.innerText.trim()).join(" "),
    pressed: [...document.querySelectorAll('[aria-pressed="true"]')].map((node) => node.innerText.trim()),
    differences: [...document.querySelectorAll(".diff")].filter(visible).length,
    text: document.body.innerText,
    ran: window.pwned ?? null,
  };
}

// how much further the page reaches than the window
export function beyond() {
  return Math.max(0, document.scrollingElement.scrollWidth - innerWidth);
}

// texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, 1.4.3 for text of usual size)
export function dim() {
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", {
    willReadFrequently: true,
  });
  const known = new Map();
  const rgba = (color) => {
    if (!known.has(color)) {
      context.clearRect(0, 0, 1, 1);
      context.fillStyle = color;
      context.fillRect(0, 0, 1, 1);
      const [red, green, blue, alpha] = context.getImageData(0, 0, 1, 1).data;
      known.set(color, [red, green, blue, alpha / 255]);
    }
    return known.get(color);
  };
  const over = (top, below) => [0, 1, 2].map((at) => top[at] * top[3] + below[at] * (1 - top[3]));
  const luminance = (color) => {
    const [red, green, blue] = color.map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (one, other) => {
    const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  };
  // from the bottom to the top: the backgrounds of those around it, and what of a picture lies below it
  const behind = (node) => {
    const layers = [];
    const picture = node.closest("svg");
    if (picture && node !== picture) {
      node.scrollIntoView({ block: "center", inline: "center" });
      const box = node.getBoundingClientRect();
      for (const shape of document.elementsFromPoint(box.x + box.width / 2, box.y + box.height / 2)) {
        const style = getComputedStyle(shape);
        if (picture.contains(shape) && shape.tagName === "rect" && style.fill !== "none") {
          const color = rgba(style.fill);
          layers.push([color[0], color[1], color[2], color[3] * style.fillOpacity]);
        }
      }
    }
    for (let around = picture ?? node; around; around = around.parentElement) {
      layers.push(rgba(getComputedStyle(around).backgroundColor));
    }
    const canvas = matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
    return layers.reverse().reduce((below, layer) => over(layer, below), canvas);
  };
  const found = new Set();
  const check = (text, node, color) => {
    const below = behind(node);
    const reached = contrast(over(rgba(color), below), below);
    if (reached < 4.5) found.add(`${reached.toFixed(2)} ${color} on ${below.map(Math.round)}: ${text.trim().slice(0, 40)}`);
  };
  document.querySelectorAll("details").forEach((node) => { node.open = true; });
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode, node = text.parentElement;
    if (!text.data.trim() || !node.checkVisibility() || ["SCRIPT", "title", "OPTION"].includes(node.tagName)) continue;
    const style = getComputedStyle(node);
    check(text.data, node, node.closest("svg") ? style.fill : style.color);
  }
  document.querySelectorAll("input, select").forEach((node) => {
    check(node.value || node.tagName, node, getComputedStyle(node).color);
    if (node.placeholder) check(node.placeholder, node, getComputedStyle(node, "::placeholder").color);
  });
  return [...found];
}

// texts of pictures that are drawn smaller than 9 pixels, beyond the edge of their picture, or over each other
export function cut() {
  const found = [];
  document.querySelectorAll("svg").forEach((picture) => {
    const edge = picture.getBoundingClientRect();
    const texts = [...picture.querySelectorAll("text")].map((node) => ({ node, box: node.getBoundingClientRect() }));
    const scale = picture.viewBox.baseVal?.width ? edge.width / picture.viewBox.baseVal.width : 1;
    texts.forEach(({ node, box }, at) => {
      const name = `${picture.getAttribute("aria-label")}: ${node.childNodes[0].data}`;
      const size = parseFloat(getComputedStyle(node).fontSize) * scale;
      if (size < 9) found.push(`${name} is ${size.toFixed(1)} pixels small`);
      if (box.left < edge.left - 1 || box.right > edge.right + 1 || box.top < edge.top - 1 || box.bottom > edge.bottom + 1) {
        found.push(`${name} is beyond the edge`);
      }
      if (node.hasAttribute("transform")) return; // the box of a text that leans holds more than the text
      const others = texts.slice(at + 1).filter((other) => !other.node.hasAttribute("transform"));
      const hit = others.find((other) =>
        box.left < other.box.right - 1 && other.box.left < box.right - 1 &&
        box.top < other.box.bottom - 3 && other.box.top < box.bottom - 3);
      if (hit) found.push(`${name} lies over ${hit.node.childNodes[0].data}`);
    });
  });
  return found;
}

// tables and pictures that are wider than their place
export function sideways() {
  return [...document.querySelectorAll(".scroll")]
    .filter((node) => node.scrollWidth > node.clientWidth + 1)
    .map((node) => node.getAttribute("aria-label"));
}

// narrow cells of tables whose text takes more than three lines
export function squeezed() {
  const lines = (cell) => {
    const text = document.createRange();
    text.selectNodeContents(cell);
    return text.getBoundingClientRect().height / parseFloat(getComputedStyle(cell).lineHeight);
  };
  return [...document.querySelectorAll("th, td")]
    .filter((cell) => cell.checkVisibility() && cell.clientWidth < 130 && lines(cell) > 3.5)
    .map((cell) => `${cell.innerText.trim().slice(0, 40)} in ${cell.clientWidth} pixels`);
}

// pictures without a text that stands for them
export function pictures() {
  const told = (node) => node.getAttribute("alt") ?? (node.getAttribute("role") === "img" ? node.getAttribute("aria-label") : "");
  return [...document.querySelectorAll("img, svg, canvas")]
    .filter((node) => !told(node)?.trim())
    .map((node) => node.outerHTML.slice(0, 80));
}

// what is wrong with the order of headings, and columns without a name
export function outline() {
  const found = [];
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].filter((node) => node.checkVisibility()).map((node) => Number(node.tagName[1]));
  if (levels.filter((level) => level === 1).length !== 1) found.push(`h1: ${levels.filter((level) => level === 1).length}`);
  levels.forEach((level, at) => at && level > levels[at - 1] + 1 && found.push(`h${levels[at - 1]} is followed by h${level}`));
  document.querySelectorAll("thead th").forEach((node) => node.textContent.trim() || found.push("a column has no name"));
  if (!document.documentElement.lang || !document.title) found.push("no language or title");
  return found;
}

export function markControls() {
  window.controls = [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex], .scroll, pre")].filter(
    (node) => {
      if (!node.checkVisibility()) return false;
      if (!node.matches(".scroll, pre")) return true;
      return node.scrollWidth > node.clientWidth + 1 || node.scrollHeight > node.clientHeight + 1;
    });
  window.reached = new Set();
  window.unseen = new Set();
  return window.controls.length;
}

export function markFocus() {
  const node = document.activeElement;
  if (!node || node === document.body || window.reached.has(node)) return false;
  window.reached.add(node);
  const style = getComputedStyle(node);
  if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) === 0) window.unseen.add(node);
  return true;
}

export function notReached() {
  const name = (node) => node.outerHTML.slice(0, 80);
  return {
    controls: window.controls.length,
    missed: window.controls.filter((node) => !window.reached.has(node)).map(name),
    unseen: [...window.unseen].map(name),
  };
}

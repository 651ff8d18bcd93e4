// Enlarges a picture: a click, or Enter. In the dialog: what lies over it, blended by a slider; the outline of a lesion;
// the slices of a volume by wheel, slider, up and down; other cases by left and right; Esc closes.
//
// A .stack, or a .counterpart, holds the .pictures of one image, the original first. A .volume holds the stacks of some of its slices, and
// in a template those of others. Any other picture is enlarged by itself.
const STACKS = ".stack, .counterpart";
const PICTURES = ".picture, .sheet img, .samples img, .pool img, .drawn img";

function element(name, attributes = {}, ...content) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...content);
  return made;
}

const imageOf = (picture) => (picture.matches("img") ? picture : picture.querySelector("img"));
const inAll = (root, selector) => [...root.querySelectorAll(selector)].filter((found) => imageOf(found));

// One image: its layers, the original first, and the outline over it.
function frameOf(pictures) {
  const layers = pictures.map((picture) => {
    const image = imageOf(picture);
    return { title: picture.dataset?.layer || image.alt, alt: image.alt, source: image.src };
  });
  const { size } = pictures[0].dataset; // of the image itself, which may have been reduced for the page
  const slice = Number(pictures[0].closest("[data-slice]")?.dataset.slice ?? 0);
  return { layers, slice, size, outline: pictures.map((picture) => picture.querySelector("svg")).find(Boolean) };
}

// What a picture belongs to: the pictures of one image, of another row of the same column, or of all slices.
function exhibitOf(picture) {
  const stack = picture.closest(STACKS), volume = picture.closest(".volume"), { column } = picture.dataset;
  const inStack = (found) => frameOf(inAll(found, PICTURES));
  let frames;
  if (volume) {
    const more = volume.querySelector("template")?.content.querySelectorAll(STACKS) ?? [];
    frames = [...volume.querySelectorAll(STACKS), ...more].map(inStack).sort((one, other) => one.slice - other.slice);
  } else if (stack) {
    frames = [inStack(stack)];
  } else {
    const others = column === undefined ? [picture]
      : inAll(picture.closest(".pictured"), ".picture").filter((other) => other.dataset.column === column);
    frames = [frameOf(others)];
  }
  const { slice } = frameOf(stack ? inAll(stack, PICTURES) : [picture]);
  const at = Math.max(0, frames.findIndex((frame) => frame.slice === slice));
  const layer = picture.dataset?.layer || imageOf(picture).alt;
  return { frames, at, layer };
}

const dialog = element("dialog", { className: "viewer" });
dialog.setAttribute("aria-label", "Enlarged picture");
const control = (name, attributes, words) => {
  const made = element(name, attributes);
  return [made, element("label", { className: attributes.className ?? "" }, words, made)];
};
const close = element("button", { type: "button", textContent: "Close", title: "Esc" });
const before = element("button", { type: "button", textContent: "← Previous", title: "arrow left" });
const after = element("button", { type: "button", textContent: "Next →", title: "arrow right" });
const exact = element("button", { type: "button", textContent: "1 : 1" });
const title = element("p", { className: "title" });
title.setAttribute("aria-live", "polite");
const base = element("img"), over = element("img", { className: "over", alt: "" });
const view = element("div", { className: "view" }, base, over);
const stage = element("div", { className: "stage", tabIndex: 0 }, view);
stage.setAttribute("aria-label", "Picture");
stage.setAttribute("role", "group");
const [layer, layerLabel] = control("select", {}, "over the original");
const [blend, blendLabel] = control("input", { type: "range", min: 0, max: 100, value: 100 }, "blend");
const [slices, slicesLabel] = control("input", { type: "range", min: 0, value: 0 }, "slice");
const [outline, outlineLabel] = control("input", { type: "checkbox", checked: true }, "outline of the lesion");
dialog.append(
  element("div", { className: "bar" }, title, close),
  stage,
  element("div", { className: "bar controls" }, before, after, exact, layerLabel, blendLabel, slicesLabel, outlineLabel),
);

let shown = null; // the picture that was asked for, its frames, and the place among them
let isExact = false;

// The largest size that fits, by whole numbers where pixels become squares; or one pixel of the screen for each.
function fit() {
  const { naturalWidth: width, naturalHeight: height } = base;
  if (!width) return;
  const room = Math.min(stage.clientWidth / width, stage.clientHeight / height);
  const scale = isExact ? 1 : room >= 4 ? Math.floor(room) : room;
  view.style.width = `${width * scale}px`;
  view.style.height = `${height * scale}px`;
  exact.setAttribute("aria-pressed", isExact);
  exact.title = `${width} × ${height} pixels, shown at ${scale.toFixed(2).replace(/\.00$/, "")}`;
}

function draw() {
  const frame = shown.frames[shown.at], [first, ...others] = frame.layers;
  base.src = first.source;
  base.alt = first.alt;
  const chosen = others.find((other) => other.title === layer.value);
  over.hidden = !chosen;
  blendLabel.hidden = !chosen;
  if (chosen) over.src = chosen.source;
  over.style.opacity = blend.value / 100;
  view.querySelector("svg")?.remove();
  if (frame.outline && outline.checked) view.append(frame.outline.cloneNode(true));
  outlineLabel.hidden = !shown.frames.some((each) => each.outline);
  slices.value = shown.at;
  base.decode().then(() => {
    const pixels = `${base.naturalWidth} × ${base.naturalHeight}`;
    const reduced = frame.size && frame.size !== pixels ? ` of ${frame.size}` : "";
    title.textContent = `${(chosen ?? first).alt} · ${pixels}${reduced} pixels`;
    fit();
  }, () => {});
}

function show(picture) {
  const exhibit = exhibitOf(picture), titles = exhibit.frames[exhibit.at].layers.map((each) => each.title);
  shown = { picture, ...exhibit };
  layer.replaceChildren(...titles.map((name, i) => element("option", { value: i ? name : "", textContent: i ? name : "nothing" })));
  layer.value = titles.indexOf(exhibit.layer) > 0 ? exhibit.layer : "";
  layerLabel.hidden = titles.length < 2;
  blend.value = 100;
  slices.max = exhibit.frames.length - 1;
  slicesLabel.hidden = exhibit.frames.length < 2;
  if (!dialog.isConnected) document.body.append(dialog);
  if (!dialog.open) dialog.showModal();
  stage.focus();
  draw();
}

function scroll(steps) {
  shown.at = Math.min(shown.frames.length - 1, Math.max(0, shown.at + steps));
  draw();
}

// The doors: one for each stack, so that the tabulator does not halt three times at every case.
const doors = [...document.querySelectorAll(PICTURES)].filter((picture) => {
  const stack = picture.closest(STACKS);
  return imageOf(picture) && !picture.closest("dialog") && (!stack || stack.querySelector(PICTURES) === picture);
});

function turn(steps) {
  const stack = (picture) => picture.closest(STACKS) ?? picture, here = stack(shown.picture);
  const seen = doors.filter((door) => door.getClientRects().length);
  const next = seen[seen.findIndex((door) => stack(door) === here) + steps];
  if (!next) return;
  const name = layer.value;
  show(next);
  if ([...layer.options].some((option) => option.value === name)) layer.value = name;
  draw();
}

for (const picture of document.querySelectorAll(PICTURES)) {
  if (imageOf(picture)) picture.classList.add("door");
}
for (const door of doors) {
  door.tabIndex = 0;
  door.setAttribute("role", "button");
  door.setAttribute("aria-label", `Enlarge: ${imageOf(door).alt}`);
}
for (const button of document.querySelectorAll(".volume .scroll button")) {
  button.parentElement.hidden = false;
  button.addEventListener("click", () => show(button.closest(".volume").querySelector(PICTURES)));
}
document.addEventListener("click", (event) => {
  const picture = event.target.closest(".door");
  if (picture && !dialog.contains(picture)) show(picture);
});
document.addEventListener("keydown", (event) => {
  const isDoor = event.target.matches?.(".door");
  if (isDoor && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    show(event.target);
  }
});
dialog.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: () => turn(-1), ArrowRight: () => turn(1), ArrowUp: () => scroll(-1), ArrowDown: () => scroll(1) };
  if (!moves[event.key] || event.target.matches("select, input[type=range]")) return;
  event.preventDefault();
  moves[event.key]();
});
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
stage.addEventListener("wheel", (event) => {
  if (shown.frames.length < 2) return;
  event.preventDefault();
  scroll(Math.sign(event.deltaY));
}, { passive: false });
close.addEventListener("click", () => dialog.close());
before.addEventListener("click", () => turn(-1));
after.addEventListener("click", () => turn(1));
exact.addEventListener("click", () => { isExact = !isExact; fit(); });
slices.addEventListener("input", () => scroll(slices.value - shown.at));
for (const changed of [layer, blend, outline]) changed.addEventListener("input", draw);
addEventListener("resize", () => dialog.open && fit());

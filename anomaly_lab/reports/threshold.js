// Recounts a table of confusion at the threshold of a slider, from the scores on the page; nothing is stored.
const rising = (a, b) => a - b;
const parsed = (text) => (text ? text.split(" ").map(Number).sort(rising) : []);
const rate = (part, all) => (all ? (part / all).toFixed(3).replace(/^0/, "") : "–");

function above(sorted, threshold) {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] > threshold) high = middle;
    else low = middle + 1;
  }
  return sorted.length - low;
}

for (const explorer of document.querySelectorAll(".explorer[data-threshold]")) {
  const [normal, anomalous] = [parsed(explorer.dataset.normal), parsed(explorer.dataset.anomalous)];
  const own = Number(explorer.dataset.threshold);
  const steps = [...new Set([-Infinity, ...normal, ...anomalous, own])].sort(rising); // below all: all are called
  const slide = explorer.querySelector(".slide"), slider = slide.querySelector("input");
  const state = explorer.querySelector(".state"), saidOfOwn = state.textContent;
  const count = () => {
    const threshold = steps[slider.value], isOwn = threshold === own;
    const [tp, fp] = [above(anomalous, threshold), above(normal, threshold)];
    const [fn, tn] = [anomalous.length - tp, normal.length - fp];
    const found = { tp, fp, fn, tn, sensitivity: rate(tp, tp + fn), specificity: rate(tn, tn + fp) };
    for (const cell of explorer.querySelectorAll("[data-count]")) cell.textContent = found[cell.dataset.count];
    explorer.classList.toggle("exploring", !isOwn);
    const words = threshold === -Infinity ? "below all scores" : `at ${threshold.toPrecision(4).replace("-", "−")}`;
    state.textContent = isOwn ? saidOfOwn : `Exploration, not a result: ${words}`;
    slider.setAttribute("aria-valuetext", isOwn ? "the run’s threshold" : words);
  };
  slider.max = steps.length - 1;
  slider.value = steps.indexOf(own);
  slide.style.setProperty("--at", steps.indexOf(own) / (steps.length - 1));
  slider.addEventListener("input", count);
  slide.querySelector("button").addEventListener("click", () => { slider.value = steps.indexOf(own); count(); });
  for (const hidden of explorer.querySelectorAll("[hidden]")) hidden.hidden = false;
  count();
}

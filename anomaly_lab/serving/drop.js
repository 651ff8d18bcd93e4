// Sends what is dropped or chosen to /score and /map, and shows what comes back; nothing is kept.
const drop = document.querySelector(".drop");
const input = drop.querySelector("input");
const anyway = document.querySelector("#anyway");
const state = document.querySelector("#state");
const rows = document.querySelector("#answer tbody");
const picture = document.querySelector("#map");

const send = (path, files) => {
  const body = new FormData();
  for (const file of files) body.append("file", file, "file");  // not its name
  return fetch(`${path}${anyway.checked ? `${path.includes("?") ? "&" : "?"}anyway=1` : ""}`, { method: "POST", body });
};

const row = (title, value) => {
  const line = rows.insertRow();
  const head = document.createElement("th");
  head.textContent = title;
  line.append(head);
  line.insertCell().textContent = value;
};

const score = async (files) => {
  if (!files.length) return;
  rows.replaceChildren();
  picture.hidden = true;
  state.textContent = "scoring …";
  try {
    const response = await send("score", files);
    const said = await response.json();
    state.textContent = response.ok ? "" : said.detail;
    if (!response.ok) return;
    row("Score", said.score);
    row("Threshold", said.threshold ?? "none");
    row("Called", { 0: "normal", 1: "anomalous" }[said.pred_label] ?? "nothing, the run has no threshold");
    row("p-value", said.p_value ?? "none");
    for (const [name, value] of Object.entries(said.probabilities ?? {})) row(`Probability of ${name}`, value);
    for (const remark of said.remarks) row("Remark", remark);
    if (!said.has_map) return;
    const map = await send("map?format=png", files);
    if (!map.ok) return;
    URL.revokeObjectURL(picture.src);
    picture.src = URL.createObjectURL(await map.blob());
    picture.hidden = false;
  } catch {
    state.textContent = "the server did not answer";
  }
};

input.addEventListener("change", () => { score([...input.files]); input.value = ""; });
for (const name of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") score([...event.dataTransfer.files]);
  });
}

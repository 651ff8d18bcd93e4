// Lays each counterpart over its original; the slider says how opaque. Without scripts they stand side by side.
for (const card of document.querySelectorAll(".counterpart")) {
  const slider = card.querySelector("input");
  const over = card.querySelector(".reconstruction img").cloneNode();
  over.ariaHidden = "true";
  over.className = "over";
  card.querySelector(".image img").after(over);
  const blend = () => { over.style.opacity = slider.value / 100; };
  slider.addEventListener("input", blend);
  blend();
  slider.parentElement.hidden = false;
}

"use strict";
document.documentElement.classList.add("scripted");
for (const example of document.querySelectorAll(".example")) {
  const slide = example.querySelector(".slide");
  const range = slide.querySelector("input");
  const show = (share) => {
    range.value = String(Math.round(share));
    range.setAttribute("aria-valuetext", range.value + " % photograph");
    example.style.setProperty("--split", share + "%");
  };
  slide.hidden = false;
  range.addEventListener("input", () => show(Number(range.value)));
  for (const frame of example.querySelectorAll(".view:not(.image) .frame")) {
    frame.addEventListener("pointermove", (event) => {
      const box = frame.getBoundingClientRect();
      show(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width)));
    });
    frame.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") show(0);
    });
  }
}

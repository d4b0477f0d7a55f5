"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector) => [...document.querySelectorAll(selector)];
  root.classList.add("js");

  const filter = document.getElementById("filter");
  const languages = all("[data-language]");
  const speak = (lang) => {
    root.lang = lang;
    filter.placeholder = filter.dataset[lang];
    for (const b of languages) b.setAttribute("aria-pressed", String(b.dataset.language === lang));
  };
  for (const b of languages) b.addEventListener("click", () => speak(b.dataset.language));
  speak(root.lang);

  const items = all(".item");
  const chips = all(".chip");
  const words = new Map(items.map((item) => [item, item.textContent.toLowerCase()]));
  const shown = document.getElementById("shown");
  const apply = () => {
    const wanted = chips.filter((c) => c.getAttribute("aria-pressed") === "true").map((c) => c.dataset.status);
    const terms = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const item of items) {
      const fits = (!wanted.length || wanted.includes(item.dataset.status)) &&
        terms.every((term) => words.get(item).includes(term));
      item.hidden = !fits;
      count += fits;
    }
    shown.textContent = `${count}/${items.length}`;
  };
  filter.addEventListener("input", apply);
  for (const c of chips) {
    c.addEventListener("click", () => {
      c.setAttribute("aria-pressed", String(c.getAttribute("aria-pressed") !== "true"));
      apply();
    });
  }

  document.getElementById("open-all").addEventListener("click", () => {
    const visible = items.filter((item) => !item.hidden);
    const open = !visible.every((item) => item.open);
    for (const item of visible) item.open = open;
  });

  // Paper cannot be unfolded.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    for (const item of closed) item.open = true;
  });
  addEventListener("afterprint", () => { for (const item of closed) item.open = false; });
})();

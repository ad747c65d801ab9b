"use strict";
// Sorting, filters, keyboard shortcuts and the selection of variants. All content is in the HTML, so the page can be read
// without this script. A sandbox or a notebook may deny access to history, and one document can hold several reports.
(() => {
  const root = document.currentScript.closest(".harness-report");
  const all = (selector, within = root) => [...within.querySelectorAll(selector)];
  const one = (id) => root.querySelector("#" + CSS.escape(id));
  const make = (tag, className, ...content) => {
    const element = document.createElement(tag);
    element.className = className;
    element.append(...content);
    return element;
  };
  root.classList.add("scripted");

  // --- sortable tables ------------------------------------------------------------------------------------------
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    const heads = all("thead tr:last-child th", table);
    heads.forEach((head, column) => {
      const button = make("button", "", ...head.childNodes);
      button.type = "button";
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === "descending" ||
          (!head.hasAttribute("aria-sort") && !head.classList.contains("n"));
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const value = (row) => row.cells[column].dataset.s;
        const order = (a, b) => {
          const [x, y] = [Number(value(a)), Number(value(b))];
          return Number.isNaN(x) || Number.isNaN(y) ? value(a).localeCompare(value(b)) : x - y;
        };
        // The base model stays on top; rows without a value come last in both directions.
        const place = (row) => (row.classList.contains("base") ? 0 : value(row) === "" ? 2 : 1);
        body.append(...[...body.rows].sort((a, b) => place(a) - place(b) || (up ? order(a, b) : order(b, a))));
      });
    });
  }

  // --- answers side by side -------------------------------------------------------------------------------------
  const answers = (tools) => {
    tools.classList.add("on");
    tools.addEventListener("submit", (event) => event.preventDefault());
    const cards = all(".case").map((node) => ({
      node, id: node.id.slice("case=".length), confirm: "confirm" in node.dataset, flip: node.querySelector(".flip"),
      shown: node.querySelector(".shown"), base: node.querySelector(".old .given"), text: null,
      pool: all(".shown .given, .others .given", node),
    }));
    // The page that compares two runs has no selection of variants, but one more filter.
    const [variant, second, flip, search] = ["variant", "with", "flip", "search"].map(one);
    const filters = all("[data-filter]", tools);
    const plain = filters.filter((list) => list !== flip);
    const name = (list) => list.selectedOptions[0].textContent;
    let here = null;

    const gave = (card, number) =>
      card.pool.filter((given) => given.dataset.by.split(" ").some((by) => by.startsWith(number + ".")));

    const classify = (card, given, number) => {
      const of = (g) => g.dataset.by.split(" ").filter((by) => by.startsWith(number + ".")).map(() => g.dataset.p);
      const scored = given.flatMap(of).filter((mark) => mark !== "none");
      if (!card.base || card.base.dataset.p === "none" || !scored.length) return ["none", "not compared"];
      const passes = scored.filter((mark) => mark === "pass").length;
      const part = (count) => (count < scored.length ? ` in ${count} of ${scored.length} seeds` : "");
      if (card.base.dataset.p === "pass") {
        const broken = scored.length - passes;
        return broken ? ["broken", "broken" + part(broken)] : ["kept", "kept"];
      }
      return passes ? ["fixed", "fixed" + part(passes)] : ["failing", "still fails"];
    };

    // Marks the words of the base model's answer that the tuned answer lacks; `data-d` has their positions.
    const strike = (base, dropped) => {
      const text = base && base.querySelector(".txt");
      if (!text || base.querySelector(".rest, .empty")) return;
      const missing = new Set((dropped || "").split(" "));
      const words = text.textContent.match(/\S+\s*|^\s+/g) || [];
      text.replaceChildren(...words.map((word, n) => (missing.has(String(n)) ? make("del", "", word) : word)));
      text.normalize();
    };

    const fill = (place, given, list) => {
      place.replaceChildren(...given.map((g) => g.cloneNode(true)));
      for (const who of all(".who", place)) who.hidden = who.textContent === name(list);
      if (!given.length) place.append(make("p", "empty", "No answer."));
    };

    const compare = () => {
      for (const card of cards) {
        if (card.confirm) continue;
        const given = gave(card, variant.value);
        fill(card.shown, given, variant);
        card.node.querySelector(".new h5").textContent = name(variant);
        strike(card.base, given.length ? given[0].dataset.d : "");
        card.node.querySelector(".third")?.remove();
        if (second.value) {
          const side = make("div", "side third", make("h5", "", name(second)), make("div", ""));
          fill(side.lastChild, gave(card, second.value), second);
          card.node.querySelector(".side.new").after(side);
        }
        const [kind, words] = classify(card, given, variant.value);
        card.node.dataset.flip = kind;
        card.node.toggleAttribute("data-error", [card.base, ...given].some((g) => g && g.dataset.p === "none"));
        card.flip.className = "flip " + kind;
        card.flip.textContent = words;
      }
      filter();
    };

    const fits = {
      "": () => true,
      changed: (data) => data.flip === "fixed" || data.flip === "broken",
      failed: (data) => data.flip === "failing" || data.flip === "broken",
      errors: (data) => "error" in data,
    };
    const fit = (value) => fits[value] || ((data) => data.flip === value);
    // Each entry of the list shows how many cases it would leave, with the current variant, role and search.
    const labels = new Map([...flip.options].map((option) => [option, option.textContent]));
    const filter = () => {
      const words = search.value.trim().toLowerCase();
      const asked = cards.filter((card) => {
        if (words && card.text === null) card.text = [card.node, ...card.pool].map((node) => node.textContent).join(" ").toLowerCase();
        return plain.every((list) => !list.value || card.node.dataset[list.dataset.filter] === list.value) &&
          (!words || card.text.includes(words));
      });
      const shown = new Set(asked.filter((card) => fit(flip.value)(card.node.dataset)));
      for (const card of cards) card.node.hidden = !shown.has(card);
      for (const [option, label] of labels) {
        option.textContent = `${label} (${asked.filter((card) => fit(option.value)(card.node.dataset)).length})`;
      }
      for (const group of all(".cases")) group.hidden = !group.querySelector(".case:not([hidden])");
      one("found").textContent = `${shown.size} of ${cards.length} cases`;
    };

    // --- addresses and keys -------------------------------------------------------------------------------------
    const address = (card) => {
      const words = variant && { variant: name(variant), ...(second.value && { with: name(second) }) };
      return "#" + new URLSearchParams({ case: card.id, ...words });
    };
    const go = (card) => {
      if (here) here.node.classList.remove("here");
      here = card;
      card.node.classList.add("here");
      card.node.scrollIntoView();
      card.node.focus({ preventScroll: true });
    };
    const note = (card) => { try { history.replaceState(null, "", address(card)); } catch { /* denied in a sandbox */ } };
    const pick = (list, wanted) => {
      const found = [...list.options].find((option) => option.textContent === wanted);
      if (found) list.value = found.value;
      return Boolean(found);
    };
    const open = (id, wanted, other) => {
      const card = cards.find((each) => each.id === id);
      if (!card) return;
      const changed = variant && [wanted && pick(variant, wanted), other && pick(second, other)].some(Boolean);
      if (changed) compare();
      if (card.node.hidden) {
        for (const list of [...filters, search]) list.value = "";
        filter();
      }
      go(card);
    };
    const arrive = () => {
      const words = new URLSearchParams(location.hash.slice(1));
      if (words.has("case")) open(words.get("case"), words.get("variant"), words.get("with"));
    };
    const step = (by) => {
      const shown = cards.filter((card) => !card.node.hidden);
      const at = here && !here.node.hidden ? shown.indexOf(here) + by : by > 0 ? 0 : -1;
      if (!shown[at]) return;
      go(shown[at]);
      note(shown[at]);
    };

    for (const list of variant ? [variant, second] : []) {
      list.addEventListener("change", () => { compare(); if (here) note(here); });
    }
    for (const list of filters) list.addEventListener("change", filter);
    search.addEventListener("input", filter);
    addEventListener("hashchange", arrive);
    root.ownerDocument.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
      const act = { j: () => step(1), k: () => step(-1), "/": () => search.focus() }[event.key];
      if (!act || (root !== document.body && !root.contains(event.target))) return;
      event.preventDefault();
      act();
    });
    root.addEventListener("click", (event) => {
      const link = event.target.closest("a[href^='#']");
      const sign = event.target.closest(".ledger tbody td");
      if (sign && sign.cellIndex > 2) {
        const number = sign.closest("table").tHead.rows[0].cells[sign.cellIndex];
        const id = sign.parentNode.querySelector("a").hash.slice("#case=".length);
        open(id, number.title, "");
        if (here) note(here);
      } else if (link && link.closest(".case > header")) {
        event.preventDefault();
        const card = cards.find((each) => each.id === link.hash.slice("#case=".length));
        go(card);
        note(card);
      } else if (link && root !== document.body) {
        // In a notebook the address belongs to the notebook.
        event.preventDefault();
        const target = one(link.hash.slice(1));
        if (target) target.scrollIntoView();
      }
    });
    filter();
    arrive();
  };
  if (one("tools")) answers(one("tools"));

  const only = one("only-changed");
  if (only) {
    only.addEventListener("change", () => {
      for (const row of all(".ledger tbody tr")) row.hidden = only.checked && !row.querySelector(".fixed, .broken");
    });
  }

  for (const button of all("[data-copy]")) {
    button.addEventListener("click", async () => {
      const source = one(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source);
        button.textContent = "Selected: press Ctrl-C";
      }
    });
  }

  let closed = [];
  addEventListener("beforeprint", () => {
    // Answers of other variants and the numbers of charts stay closed: they would take fifty pages.
    closed = all("details:not([open], .others, .numbers)");
    closed.forEach((d) => { d.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((d) => { d.open = false; }));
})();

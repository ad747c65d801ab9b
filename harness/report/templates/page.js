"use strict";
// Sorting, filters and the choice of variant. Everything is on the page already: without this it only does not move.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (id) => document.getElementById(id);
  document.documentElement.classList.add("scripted");

  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    const heads = all("thead tr:last-child th", table);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
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
        // The base stays on top, to be compared with; what has no value comes last, whichever way.
        const place = (row) => (row.classList.contains("base") ? 0 : value(row) === "" ? 2 : 1);
        const rows = [...body.rows].sort((a, b) => place(a) - place(b) || (up ? order(a, b) : order(b, a)));
        body.append(...rows);
      });
    });
  }

  const tools = one("tools");
  if (tools) {
    tools.classList.add("on");
    tools.addEventListener("submit", (event) => event.preventDefault());
    const cards = all(".case").map((node) => {
      const shown = node.querySelector(".shown");
      return {
        node, shown, confirm: Boolean(node.closest("#confirm-cases")), flip: node.querySelector(".flip"),
        base: node.querySelector(".old .given"),
        pool: [...all(".given", shown), ...all(".others .given", node)], text: null,
      };
    });
    const first = one("variant").value;

    const judge = (card, given, number) => {
      if ("void" in card.node.dataset) return ["void", "void"];
      const marks = given.flatMap((g) => g.dataset.by.split(" ").filter((by) => by.startsWith(number + ".")).map(() => g.dataset.p));
      const scored = marks.filter((mark) => mark !== "none");
      if (!card.base || card.base.dataset.p === "none" || !scored.length) return ["none", "not compared"];
      const passes = scored.filter((mark) => mark === "pass").length;
      const part = (count) => (count < scored.length ? ` in ${count} of ${scored.length} seeds` : "");
      if (card.base.dataset.p === "pass") {
        const broken = scored.length - passes;
        return broken ? ["broken", "broken" + part(broken)] : ["kept", "kept"];
      }
      return passes ? ["fixed", "fixed" + part(passes)] : ["failing", "still fails"];
    };

    const compare = () => {
      const number = one("variant").value;
      const name = one("variant").selectedOptions[0].textContent;
      for (const card of cards) {
        if (card.confirm) continue;
        const given = card.pool.filter((g) => g.dataset.by.split(" ").some((by) => by.startsWith(number + ".")));
        card.shown.replaceChildren(...(number === first && given.length ? given : given.map((g) => g.cloneNode(true))));
        if (!given.length) card.shown.textContent = "No answer.";
        card.node.querySelector(".new h5").textContent = name;
        const [kind, words] = judge(card, given, number);
        card.node.dataset.flip = kind;
        card.flip.className = "flip " + kind;
        card.flip.textContent = words;
      }
      filter();
    };

    const fits = {
      "": () => true,
      changed: (kind) => kind === "fixed" || kind === "broken",
      failed: (kind) => kind === "failing" || kind === "broken",
    };
    // How many cases each entry of the list would show, for the variant, role and words in hand.
    const labels = new Map([...one("flip").options].map((option) => [option, option.textContent]));
    const filter = () => {
      const [flip, role, words] = [one("flip").value, one("role").value, one("search").value.trim().toLowerCase()];
      const fit = fits[flip] || ((kind) => kind === flip);
      const kinds = [];
      let count = 0;
      for (const card of cards) {
        if (words && card.text === null) card.text = card.node.textContent.toLowerCase();
        const asked = (!role || card.node.dataset.role === role) && (!words || card.text.includes(words));
        if (asked) kinds.push(card.node.dataset.flip);
        const show = asked && fit(card.node.dataset.flip);
        card.node.hidden = !show;
        count += show;
      }
      for (const [option, label] of labels) {
        option.textContent = `${label} (${kinds.filter(fits[option.value] || ((kind) => kind === option.value)).length})`;
      }
      for (const group of all(".cases")) group.hidden = !group.querySelector(".case:not([hidden])");
      one("found").textContent = `${count} of ${cards.length} cases`;
    };

    one("variant").addEventListener("change", compare);
    for (const id of ["flip", "role"]) one(id).addEventListener("change", filter);
    one("search").addEventListener("input", filter);
    filter();

    const arrive = () => {
      let target = null;
      try { target = one(decodeURIComponent(location.hash.slice(1))); } catch { return; }
      if (!target || !target.hidden) return;
      for (const id of ["flip", "role", "search"]) one(id).value = "";
      filter();
      target.scrollIntoView();
    };
    addEventListener("hashchange", arrive);
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
    // Not what every other variant answered, nor the charts' numbers: on paper that is fifty pages.
    closed = all("details:not([open], .others, .numbers)");
    closed.forEach((d) => { d.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((d) => { d.open = false; }));
})();

"use strict";
// Sorting, the list of cases with its filters, keyboard shortcuts and addresses. The first screen, the charts and the
// tables are in the HTML and need no script. A sandbox or a notebook may deny access to history, and one document can
// hold several reports.
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
  const button = (className, ...content) => {
    const made = make("button", className, ...content);
    made.type = "button";
    return made;
  };
  root.classList.add("scripted");

  // --- sortable tables ------------------------------------------------------------------------------------------
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    const heads = all("thead tr:last-child th", table);
    heads.forEach((head, column) => {
      const sorter = button("", ...head.childNodes);
      head.append(sorter);
      sorter.addEventListener("click", () => {
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

  // --- columns of the table of variants ---------------------------------------------------------------------------
  for (const box of all("[data-columns]")) {
    const table = one(box.dataset.table);
    const show = () => table.classList.toggle("without-" + box.dataset.columns, !box.checked);
    box.addEventListener("change", show);
    show();
  }

  // --- words that differ ------------------------------------------------------------------------------------------
  const LONGEST = 1200; // characters; longer texts are not compared
  const ALIKE = 0.3; // with a smaller share of words in common, no word is marked, because nearly all would be
  const wordsOf = (text) => text.match(/\S+\s*|^\s+/g) || [];

  // Compares two texts word by word, by their longest common subsequence. Returns, for both, the places of the words
  // that the other lacks; null if the texts are too long or too different.
  const difference = (before, after) => {
    const [old, now] = [wordsOf(before), wordsOf(after)];
    if (Math.max(before.length, after.length) > LONGEST || !old.length || !now.length) return null;
    const [a, b] = [old, now].map((words) => words.map((word) => word.trim()));
    const lengths = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i -= 1) {
      for (let j = b.length - 1; j >= 0; j -= 1) {
        lengths[i][j] = a[i] === b[j] ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
      }
    }
    if (lengths[0][0] < ALIKE * Math.max(a.length, b.length)) return null;
    const [dropped, added] = [new Set(a.keys()), new Set(b.keys())];
    for (let i = 0, j = 0; i < a.length && j < b.length;) {
      if (a[i] === b[j]) { dropped.delete(i); added.delete(j); i += 1; j += 1; }
      else if (lengths[i + 1][j] >= lengths[i][j + 1]) i += 1;
      else j += 1;
    }
    return { old, now, dropped, added };
  };
  const mark = (node, words, places, tag) => {
    node.replaceChildren(...words.map((word, n) => (places.has(n) ? make(tag, "", word) : word)));
    node.normalize();
  };
  const markDifference = (before, after) => {
    const found = before && after && difference(before.textContent, after.textContent);
    if (!found) return;
    mark(before, found.old, found.dropped, "del");
    mark(after, found.now, found.added, "ins");
  };
  for (const card of all(".case.compared")) {
    const [before, after] = all(".given", card).map((given) => given.querySelector(":scope > .txt:not(.empty)"));
    if (!card.querySelector(".rest")) markDifference(before, after);
  }

  // --- texts ------------------------------------------------------------------------------------------------------
  const HEAD = 1000; // characters of a long text that are shown at first
  const textNode = (text) => {
    const node = make("div", "txt", text.length > HEAD * 1.2 ? text.slice(0, HEAD) : text);
    node.dir = "auto";
    return node;
  };
  const textNodes = (text) => {
    if (!text) return [make("p", "txt empty", "(empty answer)")];
    if (text.length <= HEAD * 1.2) return [textNode(text)];
    const rest = make("div", "txt", text.slice(HEAD));
    rest.dir = "auto";
    return [textNode(text), make("details", "rest",
      make("summary", "", (text.length - HEAD).toLocaleString("en") + " more characters"), rest)];
  };
  // Marks each place of `words` (in lower case) in the texts of an element.
  const highlight = (element, words) => {
    const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    const nodes = [];
    while (walker.nextNode()) nodes.push(walker.currentNode);
    for (const node of nodes) {
      const lower = node.data.toLowerCase();
      if (lower.length !== node.data.length || !lower.includes(words)) continue;
      const parts = [];
      let from = 0;
      for (let at = lower.indexOf(words); at >= 0; at = lower.indexOf(words, from)) {
        parts.push(node.data.slice(from, at), make("mark", "", node.data.slice(at, at + words.length)));
        from = at + words.length;
      }
      node.replaceWith(...parts, node.data.slice(from));
    }
  };

  // --- cases ------------------------------------------------------------------------------------------------------
  let openCase = () => {};
  const RECORD = "\x1e", PART = "\x1f";
  const KINDS = { "=": "kept", "+": "fixed", "-": "broken", x: "failing", "?": "none" };
  const WORDS = { kept: "kept", fixed: "gained", broken: "lost", failing: "still fails", none: "not compared" };
  const MARKS = { true: ["pass", "✓ pass"], false: ["fail", "✗ fail"], null: ["none", "? no score"] };

  // Yields the text of a base64 gzip file in pieces.
  const unpacked = async function* (packed) {
    let bytes;
    if (Uint8Array.fromBase64) {
      bytes = Uint8Array.fromBase64(packed);
    } else {
      const signs = atob(packed);
      bytes = new Uint8Array(signs.length);
      for (let n = 0; n < signs.length; n += 1) bytes[n] = signs.charCodeAt(n);
    }
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    for (let got = await reader.read(); !got.done; got = await reader.read()) yield got.value;
  };

  // One case. Its head is read at once; its answers and its row are made when they are needed.
  class Case {
    constructor(record) {
      const first = record.indexOf(PART);
      const second = record.indexOf(PART, first + 1);
      Object.assign(this, JSON.parse(record.slice(0, first)));
      this.unread = record.slice(first + 1, second);
      this.words = record.slice(second + 1);
      this.node = make("article", "case");
      this.node.id = "case=" + this.anchor;
      this.node.tabIndex = -1;
      this.node.dataset.role = this.role;
      this.drawn = false;
      this.open = false;
    }

    get answers() {
      this.read ??= JSON.parse(this.unread);
      return this.read;
    }

    get texts() {
      this.split ??= this.words.split(PART);
      return this.split;
    }

    // The id and all texts in lower case, to be searched.
    get sought() {
      this.lower ??= (this.id + PART + this.words).toLowerCase();
      return this.lower;
    }

    // The answers that a variant gave (0 and below: the bases), with the seeds that gave each of them.
    by(number) {
      return this.answers.filter((answer) => answer.by.some((who) => who.split(".")[0] === String(number)));
    }

    change(number) {
      return KINDS[this.changes[number - 1]] || "none";
    }

    changeWords(number) {
      const part = (this.parts || {})[number - 1];
      return WORDS[this.change(number)] + (part ? ` in ${part.replace("/", " of ")} seeds` : "");
    }
  }

  const startCases = (tools, held) => {
    tools.classList.add("on");
    tools.addEventListener("submit", (event) => event.preventDefault());
    const names = JSON.parse(held.dataset.names);
    const bases = JSON.parse(held.dataset.bases);
    const base0 = -Number(held.dataset.base); // the number of the base that the variants are compared with
    const nameOf = (number) => (number > 0 ? names[number - 1] : bases[-number]);
    const compared = Number(held.dataset.compared);
    const [variant, second, flip, role, kind, search] = ["variant", "with", "flip", "role", "kind", "search"].map(one);
    const lists = { variant, with: second, show: flip, role, kind };
    const groups = [one("main-cases"), one("confirm-cases")];
    const cases = [];
    let here = null;
    let words = "";
    const name = (list) => (list.selectedOptions[0] ? list.selectedOptions[0].textContent : "");
    // Held-out cases were answered by the chosen variant only.
    const numberOf = (card) => (card.held ? compared : Number(variant.value));

    // --- drawing a case -------------------------------------------------------------------------------------------
    const COLOURS = { "=": "--bar", "+": "--pass", "-": "--fail", x: "--sunk", "?": "--paper" };
    const told = (card, number) => `#${number} ${names[number - 1]}: ${card.changeWords(number)}`;
    // One box for each variant. The boxes of many variants are one picture, because elements would be too many.
    const strip = (card) => {
      const made = make("span", "strip");
      made.ariaHidden = "true";
      if (card.held) return made;
      const share = 100 / card.changes.length;
      if (card.changes.length > 40) {
        const parts = [...card.changes].map((sign, n) => `var(${COLOURS[sign]}) ${n * share}% ${(n + 1) * share}%`);
        made.classList.add("many");
        made.style.backgroundImage = `linear-gradient(to right, ${parts.join()})`;
        return made;
      }
      made.append(...[...card.changes].map((sign, n) => {
        const cell = make("i", KINDS[sign]);
        cell.dataset.v = n + 1;
        cell.title = told(card, n + 1);
        return cell;
      }));
      return made;
    };
    // The number of the variant whose box is at the place of an event; 0 if there is none.
    const boxAt = (card, event) => {
      const many = event.target.closest(".strip.many");
      if (!many) return Number(event.target.closest(".strip i")?.dataset.v || 0);
      const box = many.getBoundingClientRect();
      return Math.min(card.changes.length, 1 + Math.floor(((event.clientX - box.left) / box.width) * card.changes.length));
    };

    const hit = (card) => {
      const lower = card.sought;
      const at = lower.indexOf(words, card.id.length + 1);
      if (!words || at < 0) return [];
      const text = card.id + PART + card.words;
      const [from, to] = [text.lastIndexOf(PART, at) + 1, text.indexOf(PART, at)];
      const start = Math.max(from, at - 40);
      const end = Math.min(to < 0 ? text.length : to, at + words.length + 60);
      const place = text.slice(0, from).split(PART).length - 2;
      const given = card.answers.find((answer) => answer.text === place);
      const source = place === card.prompt ? "prompt" : given ? `answer of ${who(given.by)}` : "text";
      return [make("span", "hit", make("small", "", source + ": "), (start > from ? "…" : "") + text.slice(start, at),
        make("mark", "", text.slice(at, at + words.length)), text.slice(at + words.length, end))];
    };

    const who = (by) => {
      const said = by.map((one) => {
        const [number, seeds] = one.split(".");
        const own = nameOf(Number(number));
        return seeds ? `${own} (${seeds.includes(",") ? "seeds" : "seed"} ${seeds.replaceAll(",", ", ")})` : own;
      });
      return said.join(" · ");
    };

    const given = (card, answer, number, base) => {
      const [verdict, label] = MARKS[answer.passed];
      const same = base && base !== answer && base.text === answer.text && Boolean(base.cut) === Boolean(answer.cut);
      const node = make("div", "given " + verdict, make("span", "mark " + verdict, label));
      if (answer.repeats) node.append(" ", make("span", "tag", answer.repeats));
      if (answer.cut) node.append(" ", make("span", "tag", "cut at the token limit"));
      if (same) node.append(make("p", "txt same", "Same answer as the base"));
      else node.append(...textNodes(card.texts[answer.text]));
      if (answer.error) node.append(make("p", "why", "Could not be scored: " + answer.error));
      if (answer.failed && !(same && base.passed === answer.passed)) {
        node.append(make("ul", "why", ...answer.failed.map(([assertion, reason]) => {
          const code = make("code", "", assertion.split(" ")[0]);
          code.title = assertion;
          return make("li", "", code, " " + reason);
        })));
      }
      const by = number === null ? answer.by : answer.by.filter((one) => one.split(".")[0] === String(number));
      if (number === null || by.some((one) => one.includes("."))) node.append(make("p", "who", who(by)));
      return node;
    };

    const side = (className, title, ...content) => make("div", "side " + className, make("h5", "", title), ...content);
    const none = () => make("p", "empty", "No answer.");

    const details = (card) => {
      const shown = card.by(numberOf(card));
      const base = card.by(base0);
      const other = !card.held && second.value ? card.by(second.value) : null;
      const sides = make("div", "sides",
        side("old", nameOf(base0), ...(base.length ? base.map((a) => given(card, a, base0)) : [none()])),
        side("new", names[numberOf(card) - 1] || "Tuned",
          ...(shown.length ? shown.map((a) => given(card, a, numberOf(card), base[0])) : [none()])));
      if (other) {
        sides.append(side("third", name(second),
          ...(other.length ? other.map((a) => given(card, a, second.value, base[0])) : [none()])));
      }
      if (card.reference !== undefined) sides.append(side("ref", "Reference", ...textNodes(card.texts[card.reference])));
      const rest = card.answers.filter((answer) => !shown.includes(answer) && !base.includes(answer));
      const others = rest.length
        ? [make("details", "others", make("summary", "", `${rest.length} other ${rest.length > 1 ? "answers" : "answer"} ` +
          "from other variants"), ...rest.map((answer) => given(card, answer, null, base[0])))] : [];
      const facts = [card.leak, card.group && `group ${card.group}`, card.line && `suite.yaml:${card.line}`];
      const content = make("div", "inside",
        make("p", "tags", ...facts.filter(Boolean).map((fact) => make("span", "tag", fact))),
        ...(card.description ? [make("p", "desc", card.description)] : []),
        ...(card.before || []).map(([speaker, text]) =>
          make("div", "turn", make("span", "label", speaker), textNode(card.texts[text]))),
        make("div", "ask", make("span", "label", "Prompt"), ...textNodes(card.texts[card.prompt]),
          make("p", "must", "Assertions: ", ...(card.expects || []).flatMap((each) => [make("code", "", each), " "]))),
        sides, ...others);
      const [old, now] = [".old", ".new"].map((place) => sides.querySelector(place + " .given > .txt:not(.same, .empty)"));
      if (old && now && !sides.querySelector(".old .rest, .new .rest")) markDifference(old, now);
      if (words) highlight(content, words);
      return content;
    };

    const draw = (card) => {
      const change = card.change(numberOf(card));
      const row = button("row", make("span", "flip " + change, card.changeWords(numberOf(card))),
        make("span", "id", card.id), make("span", "line", card.texts[card.prompt].slice(0, 300)));
      row.setAttribute("aria-expanded", String(card.open));
      const link = make("a", "link", "#");
      link.href = "#case=" + card.anchor;
      link.title = "Permanent link to this case";
      link.ariaLabel = "Permanent link to " + card.id;
      card.node.replaceChildren(make("header", "", make("h4", "", row), make("span", "tag role", card.role),
        ...(card.held ? [make("span", "tag", "held out")] : []), strip(card), link), ...hit(card),
      ...(card.open ? [details(card)] : []));
      card.node.dataset.flip = change;
      card.drawn = true;
    };

    // Rows are drawn shortly before they come into view.
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting && !entry.target.card.drawn) draw(entry.target.card);
      }
    }, { rootMargin: "1500px 0px" });

    const redraw = () => {
      for (const card of cases) {
        if (!card.drawn) continue;
        card.drawn = false;
        const box = card.node.getBoundingClientRect();
        if (card.open || (box.bottom > -1500 && box.top < innerHeight + 1500 && !card.node.hidden)) draw(card);
        else { watcher.unobserve(card.node); watcher.observe(card.node); }
      }
    };
    // --- filters --------------------------------------------------------------------------------------------------
    // Each takes a case, how it changed under the selected variant, and the number of this variant.
    const fits = {
      "": () => true,
      changed: (card, change) => change === "fixed" || change === "broken",
      fixed: (card, change) => change === "fixed",
      broken: (card, change) => change === "broken",
      failed: (card, change) => change === "failing" || change === "broken",
      errors: (card, change, number) => (card.unscored || []).some((each) => each === base0 || each === number),
    };
    const labels = [...flip.options].map((option) => [option, option.textContent]);
    const filter = () => {
      words = search.value.trim().toLowerCase();
      const [number, show, asked, wanted] = [Number(variant.value), flip.value, role.value, kind.value];
      const counts = new Map(labels.map(([option]) => [option.value, 0]));
      const shown = [0, 0];
      for (const card of cases) {
        let seen = false;
        if ((!asked || card.role === asked) && (!wanted || card.kind === wanted) && (!words || card.sought.includes(words))) {
          const own = card.held ? compared : number;
          const change = card.change(own);
          for (const [name, fit] of Object.entries(fits)) {
            if (fit(card, change, own)) {
              counts.set(name, counts.get(name) + 1);
              seen ||= name === show;
            }
          }
        }
        if (seen) shown[card.held ? 1 : 0] += 1;
        if (card.node.hidden === seen) card.node.hidden = !seen;
      }
      // Each entry of the list shows how many cases it would leave.
      for (const [option, label] of labels) option.textContent = `${label} (${counts.get(option.value)})`;
      groups.forEach((group, n) => { group.hidden = !shown[n]; });
      one("found").textContent = `${shown[0] + shown[1]} of ${cases.length} cases`;
    };
    const refresh = () => { filter(); redraw(); };

    // --- addresses and keys -----------------------------------------------------------------------------------------
    // The first choice of each list needs no word in the address.
    const first = new Map();
    const address = () => {
      const found = new URLSearchParams();
      if (here) found.set("case", here.anchor);
      for (const [word, list] of Object.entries(lists)) {
        if (list.value !== first.get(word)) found.set(word, word === "show" || !list.value ? list.value : name(list));
      }
      if (search.value) found.set("search", search.value);
      return "#" + (found.toString() || "cases");
    };
    const note = () => {
      if (root !== document.body) return; // in a notebook the address belongs to the notebook
      try { history.replaceState(null, "", address()); } catch { /* denied in a sandbox */ }
    };
    const pick = (word, wanted) => {
      const list = lists[word];
      const found = [...list.options].find((option) => (word === "show" ? option.value : option.textContent) === wanted) ||
        [...list.options].find((option) => option.value === wanted);
      if (found) list.value = found.value;
    };
    const toggle = (card, open) => {
      card.open = open;
      draw(card);
    };
    const go = (card) => {
      if (here) here.node.classList.remove("here");
      here = card;
      card.node.classList.add("here");
      if (!card.open) toggle(card, true);
      card.node.scrollIntoView();
      card.node.focus({ preventScroll: true });
    };
    const open = (id) => {
      const card = cases.find((each) => each.anchor === id);
      if (!card) return;
      if (card.node.hidden) {
        for (const list of [flip, role, kind, search]) list.value = "";
        refresh();
      }
      go(card);
    };
    openCase = open;
    const arrive = () => {
      const asked = new URLSearchParams(location.hash.slice(1));
      const known = [...Object.keys(lists), "search"].filter((word) => asked.has(word));
      for (const word of known) {
        if (word === "search") search.value = asked.get(word);
        else pick(word, asked.get(word));
      }
      if (known.length) refresh();
      if (asked.has("case")) open(asked.get("case"));
      else if (known.length) one("cases").scrollIntoView();
    };
    const step = (by) => {
      const shown = cases.filter((card) => !card.node.hidden);
      const at = here && !here.node.hidden ? shown.indexOf(here) + by : by > 0 ? 0 : -1;
      if (!shown[at]) return;
      if (here && here.open) toggle(here, false);
      go(shown[at]);
      note();
    };
    const choose = (changes) => {
      for (const [word, value] of Object.entries(changes)) pick(word, value);
      refresh();
      note();
    };

    for (const list of Object.values(lists)) list.addEventListener("change", () => { refresh(); note(); });
    search.addEventListener("input", () => { refresh(); note(); });
    one("previous").addEventListener("click", () => step(-1));
    one("following").addEventListener("click", () => step(1));
    addEventListener("hashchange", arrive);
    root.ownerDocument.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
      const act = { j: () => step(1), k: () => step(-1), "/": () => search.focus() }[event.key];
      if (!act || (root !== document.body && !root.contains(event.target))) return;
      event.preventDefault();
      act();
    });
    one("cases").addEventListener("click", (event) => {
      const card = event.target.closest(".case")?.card;
      if (!card) return;
      const number = boxAt(card, event);
      if (number) {
        if ([...variant.options].some((option) => option.value === String(number))) variant.value = String(number);
        refresh();
        open(card.anchor);
        note();
      } else if (event.target.closest("button.row")) {
        toggle(card, !card.open);
        if (here) here.node.classList.remove("here");
        here = card.open ? card : null;
        card.node.classList.toggle("here", card.open);
        card.node.querySelector(".row").focus({ preventScroll: true });
        note();
      } else if (event.target.closest("a.link")) {
        event.preventDefault();
        go(card);
        note();
      }
    });
    one("cases").addEventListener("mousemove", (event) => {
      const many = event.target.closest(".strip.many");
      if (many) many.title = told(many.closest(".case").card, boxAt(many.closest(".case").card, event));
    });
    // A click on a kind, or on one variant's cell, shows these cases.
    for (const row of all(".kinds tbody tr")) {
      const head = row.querySelector(".kind");
      const filterBy = button("", ...head.childNodes);
      filterBy.title = "Show these cases";
      head.append(filterBy);
      const variants = all(".kinds thead [data-v]").map((column) => column.dataset.v);
      const cells = all("td.h", row);
      row.addEventListener("click", (event) => {
        const at = cells.indexOf(event.target.closest("td.h"));
        if (at < 0 && !event.target.closest("button")) return;
        const asked = { role: row.dataset.role, kind: row.dataset.kind, show: at < 0 ? "" : "changed", variant: variants[at] };
        if (at < 0) delete asked.variant;
        choose(asked);
        one("cases").scrollIntoView();
      });
    }

    // --- reading the data -----------------------------------------------------------------------------------------
    const add = (record) => {
      const card = new Case(record);
      card.node.card = card;
      cases.push(card);
      groups[card.held ? 1 : 0].append(card.node);
      watcher.observe(card.node);
    };
    const prepare = () => {
      // Lower-case texts for the search are made while nothing else happens.
      let at = 0;
      const some = (left) => {
        while (at < cases.length && left.timeRemaining() > 2) { cases[at].sought; at += 1; }
        if (at < cases.length) requestIdleCallback(some);
      };
      requestIdleCallback(some);
    };
    const read = async () => {
      let rest = "";
      for await (const piece of unpacked(held.content.textContent)) {
        const records = (rest + piece).split(RECORD);
        rest = records.pop();
        records.forEach(add);
      }
      if (rest) add(rest);
      held.content.replaceChildren();
      if (cases.some((card) => "+-".includes(card.changes[numberOf(card) - 1] || "?"))) flip.value = "changed";
      for (const [word, list] of Object.entries(lists)) first.set(word, list.value);
      filter();
      arrive();
      prepare();
      root.classList.add("ready");
    };
    requestAnimationFrame(() => setTimeout(read));
  };
  if (one("tools") && one("case-data")) startCases(one("tools"), one("case-data"));

  // --- the page that compares two runs ------------------------------------------------------------------------------
  const startCards = (tools) => {
    tools.classList.add("on");
    tools.addEventListener("submit", (event) => event.preventDefault());
    const cards = all(".case").map((node) => ({ node, text: node.textContent.toLowerCase() }));
    const filters = all("[data-filter]", tools);
    const search = one("search");
    let here = null;
    const filter = () => {
      const words = search.value.trim().toLowerCase();
      for (const { node, text } of cards) {
        node.hidden = !filters.every((list) => !list.value || node.dataset[list.dataset.filter] === list.value) ||
          !text.includes(words);
      }
      one("found").textContent = `${cards.filter((card) => !card.node.hidden).length} of ${cards.length} cases`;
    };
    const go = (node) => {
      if (here) here.classList.remove("here");
      here = node;
      node.classList.add("here");
      node.scrollIntoView();
      node.focus({ preventScroll: true });
    };
    const step = (by) => {
      const shown = cards.map((card) => card.node).filter((node) => !node.hidden);
      const next = shown[here && !here.hidden ? shown.indexOf(here) + by : by > 0 ? 0 : -1];
      if (!next) return;
      go(next);
      try { history.replaceState(null, "", "#" + next.id); } catch { /* denied in a sandbox */ }
    };
    for (const list of filters) list.addEventListener("change", filter);
    search.addEventListener("input", filter);
    root.ownerDocument.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
      const act = { j: () => step(1), k: () => step(-1), "/": () => search.focus() }[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    });
    filter();
  };
  if (one("tools") && !one("case-data")) startCards(one("tools"));

  root.addEventListener("click", (event) => {
    // In a notebook the address belongs to the notebook.
    const link = event.target.closest("a[href^='#']");
    if (!link || root === document.body || link.matches(".case a")) return;
    event.preventDefault();
    const id = decodeURIComponent(link.getAttribute("href").slice(1));
    if (id.startsWith("case=")) openCase(id.slice("case=".length));
    else one(id)?.scrollIntoView();
  });

  for (const copier of all("[data-copy]")) {
    copier.addEventListener("click", async () => {
      const source = one(copier.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent);
        copier.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source);
        copier.textContent = "Selected: press Ctrl-C";
      }
    });
  }

  let closed = [];
  addEventListener("beforeprint", () => {
    // The numbers of charts stay closed: they would take many pages.
    closed = all("details.lacking:not([open]), details.refuted:not([open])");
    closed.forEach((d) => { d.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((d) => { d.open = false; }));
})();

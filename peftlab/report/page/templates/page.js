"use strict";
(() => {
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  const one = (id) => document.getElementById(id);

  /* Light or dark: what the system says, until the button is pressed. */
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const showTheme = () => {
    one("theme").textContent = isDark() ? "Light" : "Dark";
    one("theme").setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
  };
  const memory = {
    get: () => { try { return localStorage.getItem("peftlab-theme"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("peftlab-theme", value); } catch { /* private */ } },
  };
  if (["light", "dark"].includes(memory.get())) root.dataset.theme = memory.get();
  one("theme").hidden = false;
  one("theme").removeAttribute("aria-pressed");
  one("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    memory.set(root.dataset.theme);
    showTheme();
  });
  dark.addEventListener("change", showTheme);
  showTheme();

  /* Tables: a button in each head sorts; what has no number stays last. */
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return cell === undefined ? undefined : cell.dataset.value ?? (cell.tagName === "TH" ? cell.textContent : undefined);
  };
  const sort = (table, column, direction, text) => {
    const sign = direction === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const known = (v) => v !== undefined && v !== "";
    const compare = (a, b) => (text ? a.localeCompare(b) : Number(a) - Number(b));
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [valueOf(a, column), valueOf(b, column)];
      if (known(x) && known(y)) return sign * compare(x, y);
      return Number(known(y)) - Number(known(x));
    });
    body.append(...rows);
    all("thead th", table).forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", direction);
      else head.removeAttribute("aria-sort");
    });
  };
  for (const table of all("table.sortable")) {
    all("thead th", table).forEach((head, column) => {
      if (head.dataset.kind === "none") return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const first = head.dataset.first || "ascending";
        const other = first === "ascending" ? "descending" : "ascending";
        sort(table, column, now === first ? other : first, head.dataset.kind === "text");
      });
    });
  }

  /* Tooltips, and following one method through the figures. */
  const tip = one("tip");
  const place = (x, y) => {
    const box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(x - box.width / 2, 8), innerWidth - box.width - 8);
    const top = y - box.height - 14;
    tip.style.left = `${left}px`;
    tip.style.top = `${top > 8 ? top : y + 18}px`;
  };
  const follow = (label) => {
    for (const svg of all("svg.plot")) svg.classList.toggle("following", label !== null && !svg.classList.contains("phase-plot"));
    for (const part of all("svg.plot [data-method]")) part.classList.toggle("followed", part.dataset.method === label);
  };
  const show = (target, x, y) => {
    tip.textContent = target.dataset.tip || target.getAttribute("aria-label").replaceAll(";\n", "\n");
    tip.hidden = false;
    place(x, y);
    const method = target.closest("[data-method]");
    if (method) follow(method.dataset.method);
  };
  const hide = () => { tip.hidden = true; follow(null); };
  document.addEventListener("pointermove", (event) => {
    const target = event.target.closest?.("[data-tip]");
    if (target) show(target, event.clientX, event.clientY);
    else if (!tip.hidden && !document.activeElement?.matches?.("[data-tip]")) hide();
  });
  document.addEventListener("pointerleave", hide);
  document.addEventListener("focusin", (event) => {
    const target = event.target.closest?.("[data-tip]");
    if (!target) return hide();
    const box = (target.querySelector(".mark, .stroke, .label") || target).getBoundingClientRect();
    show(target, box.left + box.width / 2, box.top);
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  for (const key of all(".key")) {
    key.addEventListener("pointerenter", () => follow(key.dataset.key));
    key.addEventListener("pointerleave", () => follow(null));
  }

  /* Predictions: search, one method, one kind, with or without differences. */
  const filter = one("filter");
  if (filter) {
    const examples = all(".example");
    const read = new Map();
    const plain = (node) => {
      const copy = node.cloneNode(true);
      all("del", copy).forEach((part) => part.remove());
      return copy.textContent.toLowerCase();
    };
    const says = (node, words) => {
      if (!read.has(node)) read.set(node, plain(node));
      return read.get(node).includes(words);
    };
    const apply = () => {
      const words = one("search").value.trim().toLowerCase();
      const [label, kind] = [one("only").value, one("kind").value];
      let shown = 0;
      for (const example of examples) {
        const answers = all(".answers li", example);
        for (const item of answers) {
          item.hidden = label !== "" && item.dataset.label !== label;
          item.classList.toggle("hit", words !== "" && says(item.querySelector(".text"), words));
        }
        const fits = !words || all(".given .text", example).some((text) => says(text, words))
          || answers.some((item) => !item.hidden && item.classList.contains("hit"));
        example.hidden = !fits || (kind !== "" && example.dataset.kind !== kind);
        shown += example.hidden ? 0 : 1;
      }
      one("count").textContent = `${shown} of ${examples.length} shown`;
      one("nothing").hidden = shown > 0;
      one("predictions").classList.toggle("plain", !one("marks").checked);
    };
    filter.hidden = false;
    filter.addEventListener("input", apply);
    filter.addEventListener("submit", (event) => event.preventDefault());
    apply();
  }

  const copy = one("copy");
  if (copy && navigator.clipboard) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(one("command").textContent);
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
  }
})();

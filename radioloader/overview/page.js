"use strict";
// The table of volumes. Everything from the store enters the page as text, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { columns, rows } = data;
  const at = (id) => document.getElementById(id);
  const table = at("table"), body = table.tBodies[0], dialog = at("dialog");
  const order = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const collection = columns.findIndex((column) => column.label === "Collection");
  const subject = columns.findIndex((column) => column.label === "Subject");
  const classes = { text: "", number: "n", sizes: "sizes" };
  const state = { sort: null, down: false, page: 0 };
  let shown = rows;

  const make = (tag, text, values) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    return Object.assign(element, values);
  };

  // Names that turn the direction of text must not turn what follows them.
  const turning = /[\u0590-\u08ff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc]/;
  const isolate = (text) => (turning.test(text) ? "\u2068" + text + "\u2069" : text);

  // Numbers as they are, without the binary tail; sizes with a cross between them.
  const say = (column, value) => {
    if (value === null) return "";
    if (column.kind === "sizes") return value.map((part) => (part === null ? "?" : String(part))).join(" \u00d7 ");
    if (column.kind === "number") return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
    return value;
  };
  const weight = (column, value) => (column.kind === "sizes" ? value.reduce((a, b) => a * (b === null ? 1 : b), 1) : value);

  for (const row of rows) {
    row.text = [...columns.map((column, i) => say(column, row.v[i])), ...row.f].join("\n").toLowerCase();
  }

  // Pictures lie in chunks, which are parsed when one of theirs is shown.
  const chunks = new Map();
  const picture = (number) => {
    const chunk = Math.floor(number / data.chunk);
    if (!chunks.has(chunk)) {
      if (chunks.size > 8) chunks.delete(chunks.keys().next().value);
      chunks.set(chunk, JSON.parse(at("pictures-" + chunk).textContent));
    }
    return "data:" + data.mime + ";base64," + chunks.get(chunk)[number % data.chunk];
  };
  const described = (row) => {
    const name = isolate(row.v[subject]) + ", " + isolate(row.v[collection]);
    return "Axial, coronal and sagittal plane of " + name + (row.l ? " with label " + isolate(row.l) : "");
  };

  const swatch = (colour) => {
    const square = make("span", undefined, { className: "swatch" });
    square.style.backgroundColor = colour;
    square.setAttribute("aria-hidden", "true");
    return square;
  };
  const legend = (row) => {
    const list = at("legend"), names = data.legends[row.l] ?? {};
    list.replaceChildren();
    for (const value of row.c ?? []) {
      const item = make("li");
      item.append(swatch(names[value][1]), isolate(row.l) + " " + isolate(names[value][0]));
      list.append(item);
    }
    if (row.m) list.append(make("li", "and " + row.m + " more classes"));
    list.hidden = !list.children.length;
  };

  const open = (row) => {
    at("dialog-h").textContent = isolate(row.v[subject]) + ", " + isolate(row.v[collection]);
    const image = dialog.querySelector("img");
    image.src = picture(row.p);
    image.alt = described(row);
    legend(row);
    const list = dialog.querySelector("dl");
    list.replaceChildren();
    const add = (name, value) => {
      const both = make("div");
      both.append(make("dt", name), make("dd", value));
      list.append(both);
    };
    columns.forEach((column, i) => {
      if (row.v[i] !== null) add(column.label, say(column, row.v[i]));
    });
    if (row.w) add("Window", row.w.map((value) => Number(value.toPrecision(4))).join(" to "));
    for (const reason of row.f) add("Odd", reason);
    dialog.showModal();
  };

  const heading = () => {
    const line = make("tr");
    if (data.pictures) {
      const cell = make("th", undefined, { scope: "col" });
      cell.append(make("span", "Picture"));
      line.append(cell);
    }
    const button = (label, key, numeric) => {
      const cell = make("th", undefined, { scope: "col", className: numeric ? "n" : "" });
      const down = state.sort === key && state.down;
      if (state.sort === key) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      const control = make("button", label, { type: "button" });
      control.dataset.key = key;
      control.addEventListener("click", () => {
        state.down = state.sort === key ? !state.down : key === "odd"; // what is odd comes first
        state.sort = key;
        update(true);
        // The heading is made anew, and the keyboard stays where it was.
        table.querySelector('thead button[data-key="' + key + '"]').focus();
      });
      // On paper headings are text: browsers do not repeat buttons on each page.
      const text = make("span", label, { className: "print" });
      text.setAttribute("aria-hidden", "true");
      cell.append(control, text);
      line.append(cell);
    };
    columns.forEach((column, i) => {
      if (i === subject) {
        button(column.label, String(i), false);
        button("What is odd", "odd", false);
      } else if (!column.hidden) {
        button(column.label, String(i), column.kind === "number");
      }
    });
    table.tHead.replaceChildren(line);
  };

  const line = (row) => {
    const element = make("tr");
    if (data.pictures) {
      const cell = make("td");
      if (row.p !== null) {
        const control = make("button", undefined, { type: "button", className: "picture" });
        control.append(make("img", undefined, { src: picture(row.p), alt: described(row) }));
        control.setAttribute("aria-haspopup", "dialog");
        control.addEventListener("click", () => open(row));
        cell.append(control);
      } else {
        cell.append(make("span", "no picture", { className: "none" }));
      }
      element.append(cell);
    }
    columns.forEach((column, i) => {
      if (i === subject) {
        element.append(make("th", say(column, row.v[i]), { scope: "row" }));
        const cell = make("td", undefined, { className: "flags" });
        if (row.f.length) {
          const list = make("ul", undefined, { className: "tally" });
          for (const reason of row.f) list.append(make("li", reason));
          cell.append(list);
        }
        element.append(cell);
      } else if (!column.hidden) {
        element.append(make("td", say(column, row.v[i]), { className: classes[column.kind] }));
      }
    });
    return element;
  };

  const compare = (key) => {
    const sign = state.down ? -1 : 1;
    if (key === "odd") return (a, b) => sign * (a.f.length - b.f.length);
    const i = Number(key), column = columns[i];
    return (a, b) => {
      const x = a.v[i], y = b.v[i];
      if (x === null || y === null) return (x === null) - (y === null); // what is missing is last, either way
      if (column.kind === "text") return sign * order.compare(x, y);
      return sign * (weight(column, x) - weight(column, y));
    };
  };

  const choose = () => {
    const words = at("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const name = at("collection").value, odd = at("odd").checked;
    shown = rows.filter(
      (row) =>
        (!name || row.v[collection] === name) && (!odd || row.f.length) && words.every((word) => row.text.includes(word)),
    );
    if (state.sort !== null) shown = shown.slice().sort(compare(state.sort));
  };

  // Containers that hold more than they show say so: with a shadow, and the large one in words too.
  const hint = () => {
    for (const box of document.querySelectorAll(".wide")) {
      const rest = box.scrollWidth - box.clientWidth;
      box.classList.toggle("before", rest > 1 && box.scrollLeft > 1);
      box.classList.toggle("after", rest > 1 && box.scrollLeft < rest - 1);
      if (box.id === "scroller") at("hint").hidden = rest <= 1;
    }
  };
  const number = (value) => value.toLocaleString("en");

  const update = (again) => {
    if (again) {
      choose();
      state.page = 0;
    }
    heading();
    const size = Number(at("size").value), pages = Math.max(1, Math.ceil(shown.length / size));
    state.page = Math.min(Math.max(state.page, 0), pages - 1);
    const first = state.page * size, part = shown.slice(first, first + size);
    body.replaceChildren(...part.map(line));
    const all = shown.length === rows.length ? "" : ", filtered from " + number(rows.length);
    at("status").textContent = shown.length
      ? "Rows " + number(first + 1) + " to " + number(first + part.length) + " of " + number(shown.length) + all
      : "No row" + all;
    at("page").textContent = "Page " + number(state.page + 1) + " of " + number(pages);
    // Not "disabled": the keyboard would lose its place when the last page is reached.
    at("back").setAttribute("aria-disabled", state.page === 0);
    at("next").setAttribute("aria-disabled", state.page === pages - 1);
    hint();
  };

  for (const name of [...new Set(rows.map((row) => row.v[collection]))].sort(order.compare)) {
    at("collection").append(make("option", name, { value: name }));
  }
  columns.forEach((column, i) => {
    if (i === subject) return;
    const label = make("label"), box = make("input", undefined, { type: "checkbox", checked: !column.hidden });
    box.addEventListener("change", () => {
      column.hidden = !box.checked;
      update(false);
    });
    label.append(box, " " + column.label);
    at("choose").querySelector("div").append(label);
  });
  const turn = (button, step) => {
    if (button.getAttribute("aria-disabled") === "true") return;
    state.page += step;
    update(false);
    at("volumes").scrollIntoView();
  };
  at("back").addEventListener("click", (event) => turn(event.currentTarget, -1));
  at("next").addEventListener("click", (event) => turn(event.currentTarget, 1));
  for (const id of ["collection", "odd", "size"]) at(id).addEventListener("change", () => update(true));
  at("find").addEventListener("input", () => update(true));
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && at("choose").open && at("choose").contains(document.activeElement)) {
      at("choose").open = false;
      at("choose").querySelector("summary").focus();
    }
  });
  for (const box of document.querySelectorAll(".wide")) box.addEventListener("scroll", hint, { passive: true });
  window.addEventListener("resize", hint);
  update(true);
})();

"use strict";

// Text from the model or from a user is set as text, never as markup.

const byId = (id) => document.getElementById(id);
const MOST_NAMED = 4;
let running = null;

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

async function request(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server cannot be reached: is encdec serve still running?");
  }
  if (answer.ok) return answer;
  const refusal = await answer.json().catch(() => ({}));
  throw new Error(refusal.error || `the server answered ${answer.status}`);
}

// The JSON values of an answer, one on each line, as they arrive.
async function* values(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    yield* lines.map((line) => JSON.parse(line));
  }
}

async function begin() {
  const about = await (await request("about")).json();
  const step = about.step === null ? "" : `, step ${about.step}`;
  document.title = `${about.run} – encdec`;
  byId("run").textContent = about.run;
  byId("model").textContent = `${about.model}${step}`;
  byId("text").placeholder = about.example;
  byId("beam").value = about.beam;
  byId("beam").max = byId("nbest").max = about.most_beam;
  if (about.maps.length > 1) {
    byId("maps").hidden = false;
    byId("map").append(new Option("mean of all", ""));
    about.maps.forEach((name, i) => byId("map").append(new Option(name, i)));
  }
}

async function translate() {
  if (running) running.abort();
  const current = (running = new AbortController());
  const nbest = Number(byId("nbest").value);
  // The beam must be at least as wide as the number of translations.
  if (nbest > Number(byId("beam").value)) byId("beam").value = nbest;
  const map = byId("map").value;
  const body = {
    text: byId("text").value || byId("text").placeholder,
    beam: Number(byId("beam").value),
    nbest,
    map: map === "" ? null : Number(map),
    stream: true,
  };
  byId("error").textContent = byId("attended").textContent = "";
  byId("status").textContent = "Translating …";
  try {
    const start = performance.now();
    const answer = await request("translate", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: current.signal,
    });
    const growing = []; // the translation of each sentence so far
    let result = null;
    for await (const value of values(answer)) {
      if (current !== running) return;
      if (value.error) throw new Error(value.error);
      if (value.sentences) result = value;
      else growing[value.sentence] = value.text;
      byId("found").replaceChildren(...Array.from(growing, growingText));
    }
    if (current !== running) return;
    if (!result) throw new Error("the server ended before the translation was complete");
    byId("found").replaceChildren(...result.sentences.map(article));
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    byId("status").textContent = `Translated in ${seconds} s`;
  } catch (error) {
    if (current !== running) return; // a later request has replaced this one
    byId("status").textContent = "";
    byId("found").replaceChildren();
    byId("error").textContent = error.message;
  }
}

function growingText(text) {
  const made = element("p", "growing", text || "");
  made.dir = "auto";
  return made;
}

// One source sentence and its translations. `shown` is the translation whose attention the source
// row shows: the one that was pointed at last.
function article(sentence) {
  const made = element("article");
  const list = element("ol");
  const source = { labels: sentence.source, buttons: [] };
  let shown = 0;
  const targets = sentence.translations.map((one) => ({ ...one, labels: one.tokens, buttons: [] }));

  const clear = () => {
    for (const row of [source, ...targets]) row.buttons.forEach((b) => shade(b, 0));
    byId("attended").textContent = "";
  };
  const point = (from, at, to, weights, verb) => {
    clear();
    from.buttons[at].classList.add("pointed");
    to.buttons.forEach((button, i) => shade(button, weights[i]));
    byId("attended").textContent = describe(from.labels[at], verb, to.labels, weights);
  };

  if (targets.some((one) => one.attention)) {
    made.append(
      row(source, "Source tokens", clear, (s) => {
        const one = targets[shown];
        point(source, s, one, one.attention.map((w) => w[s]), "was attended to by");
      }),
    );
  }
  targets.forEach((one, i) => {
    const item = element("li");
    const text = element("p", "text", one.text);
    text.dir = "auto";
    item.append(text, element("div", "score", `score ${one.score.toFixed(3)} nats`));
    if (one.attention) {
      item.append(
        row(one, `Tokens of translation ${i + 1}`, clear, (t) => {
          shown = i;
          point(one, t, source, one.attention[t], "attended to");
        }),
      );
    }
    list.append(item);
  });
  made.append(list);
  return made;
}

// A row of token buttons. Tab reaches one of them, and the arrow keys move to the others.
function row(side, name, clear, point) {
  const made = element("div", "tokens");
  made.setAttribute("role", "group");
  made.setAttribute("aria-label", name);
  made.dir = "auto";
  side.buttons = side.labels.map((label, i) => {
    const button = element("button", "token", label);
    button.type = "button";
    button.tabIndex = i ? -1 : 0;
    button.addEventListener("mouseenter", () => point(i));
    button.addEventListener("mouseleave", () => {
      clear();
      const focused = side.buttons.indexOf(document.activeElement);
      if (focused >= 0) point(focused);
    });
    button.addEventListener("focus", () => {
      side.buttons.forEach((other, j) => (other.tabIndex = i === j ? 0 : -1));
      point(i);
    });
    button.addEventListener("blur", clear);
    button.addEventListener("click", () => point(i));
    button.addEventListener("keydown", (event) => {
      const last = side.buttons.length - 1;
      const ahead = getComputedStyle(made).direction === "rtl" ? -1 : 1;
      const places = { ArrowLeft: i - ahead, ArrowRight: i + ahead, Home: 0, End: last };
      const next = side.buttons[places[event.key]];
      if (!next) return;
      event.preventDefault();
      next.focus();
    });
    return button;
  });
  made.append(...side.buttons);
  return made;
}

function shade(button, weight) {
  button.classList.remove("pointed");
  button.style.setProperty("--shade", weight);
  button.classList.toggle("dark", weight > 0.61);
}

function describe(label, verb, labels, weights) {
  const order = weights.map((_, i) => i).sort((a, b) => weights[b] - weights[a]);
  const named = order
    .slice(0, MOST_NAMED)
    .filter((i) => weights[i] >= 0.01)
    .map((i) => `“${labels[i]}” ${Math.round(100 * weights[i])} %`);
  return `“${label}” ${verb} ${named.length ? named.join(", ") : "no token in particular"}`;
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  translate();
});
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
});
byId("map").addEventListener("change", () => {
  if (byId("found").children.length) byId("form").requestSubmit();
});
begin().catch((error) => (byId("error").textContent = error.message));

// Keeps the page up to date: fetches itself and replaces the parts that changed. What somebody is reading stays as it is:
// focus, scroll position, and what was opened.
"use strict";

const every = 2000; // ms

function replace(old, fresh) {
	if (old.innerHTML === fresh.innerHTML && old.className === fresh.className) return;
	const open = new Set([...old.querySelectorAll("details[open]")].map((d) => d.id));
	const focus = old.contains(document.activeElement) ? document.activeElement.id : "";
	old.className = fresh.className;
	old.innerHTML = fresh.innerHTML;
	for (const d of old.querySelectorAll("details")) if (open.has(d.id)) d.open = true;
	if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
}

async function look() {
	let ok = false;
	try {
		const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(10000) });
		ok = answer.ok;
		if (ok) {
			const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
			document.title = fresh.title;
			for (const old of document.querySelectorAll("[data-live]")) {
				const next = fresh.getElementById(old.id);
				if (next) replace(old, next);
			}
		}
	} catch {
		ok = false; // the daemon is away: said on the page
	}
	document.body.classList.toggle("stalled", !ok);
}

async function run() {
	for (;;) {
		await new Promise((done) => setTimeout(done, every));
		if (!document.hidden) await look();
	}
}

run();

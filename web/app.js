"use strict";
const out = document.getElementById("status");
async function show() {
  try {
    const answer = await fetch("/api/v1/status");
    out.textContent = JSON.stringify(await answer.json(), null, 2);
  } catch (error) {
    out.textContent = String(error);
  }
}
show();
setInterval(show, 5000);

// A click on an utterance moves the video there, and asks for its evidence.
const mark = (number) => {
    for (const button of element.querySelectorAll("button[data-number]"))
        button.setAttribute("aria-pressed", button.dataset.number === number);
};
let chosen = null;
element.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-number]");
    if (!button) return;
    chosen = button.dataset.number;
    mark(chosen);
    const video = document.querySelector("#clip video");
    if (video) {
        video.currentTime = Number(button.dataset.start);
        video.play().catch(() => {});
    }
    trigger("select", { number: Number(chosen) });
});
// The list is drawn anew when an utterance is added: who is in it with the keyboard stays there.
let focused = null;
element.addEventListener("focusin", (event) => { focused = event.target.dataset.number ?? null; });
element.addEventListener("focusout", (event) => { if (event.relatedTarget) focused = null; });
watch("value", () => {
    mark(chosen);
    if (focused && document.activeElement === document.body)
        element.querySelector(`button[data-number="${focused}"]`)?.focus();
});

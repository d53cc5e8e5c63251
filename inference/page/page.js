// Runs when the page is loaded. LARGEST and TOO_LARGE are filled in by `emotion_page.py`.
() => {
    const say = (text) => { document.querySelector("#status [role=status]").textContent = text; };
    // Files that are too large are refused with a sentence, before Gradio refuses them with an error.
    const refuse = (event) => {
        const files = [...(event.target.files ?? event.dataTransfer?.files ?? [])];
        const large = files.find((file) => file.size > LARGEST);
        if (!large) return;
        event.preventDefault();
        event.stopImmediatePropagation();
        if (event.target.files) event.target.value = "";
        say(`${large.name} has ${Math.round(large.size / 2 ** 20)} MiB. TOO_LARGE`);
    };
    document.addEventListener("change", refuse, true);
    document.addEventListener("drop", refuse, true);
    // A clip that the browser cannot play is no error: MicroEmo reads more formats.
    document.addEventListener("error", (event) => {
        if (!event.target.closest?.("#clip")) return;
        event.stopImmediatePropagation();
        document.querySelector("#clip").dataset.unplayable = "";
    }, true);
    document.addEventListener("loadstart", (event) => {
        if (event.target.closest?.("#clip")) delete document.querySelector("#clip").dataset.unplayable;
    }, true);
    // Gradio's fields for files have other names than what is written on them.
    const rename = () => document.querySelectorAll("button[aria-dropeffect][aria-label]").forEach(
        (button) => button.removeAttribute("aria-label"));
    new MutationObserver(rename).observe(document.body, { childList: true, subtree: true });
    rename();
}

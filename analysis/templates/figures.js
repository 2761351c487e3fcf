// Unpacks the figures, which are zipped SVG.
for (const image of document.querySelectorAll("img[data-svg]")) {
  const zipped = Uint8Array.from(atob(image.dataset.svg), (c) => c.charCodeAt(0));
  const plain = new Blob([zipped]).stream().pipeThrough(new DecompressionStream("gzip"));
  new Response(plain, { headers: { "Content-Type": "image/svg+xml" } }).blob().then((svg) => (image.src = URL.createObjectURL(svg)));
}

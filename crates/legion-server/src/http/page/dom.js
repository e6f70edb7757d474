// @ts-check
/** Elements. Text is only ever set as text: names and predictions of a model are not trusted. */

/**
 * Returns a new element.
 *
 * @param {string} tag
 * @param {Record<string, string | number | boolean | undefined>} [attributes] `true` sets an empty one, `false` none.
 * @param {...(Node | string)} children
 * @returns {HTMLElement}
 */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== undefined) node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children);
  return node;
}

/**
 * Returns the element of the document with this id.
 *
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  const node = document.getElementById(id);
  if (!node) throw new Error(`the document has no element ${id}`);
  return node;
}

/**
 * Returns a table with a caption for screen readers.
 *
 * @param {string} caption
 * @param {string[]} head
 * @param {(string | Node)[][]} rows
 * @returns {HTMLElement} A region that scrolls sideways on its own.
 */
export function table(caption, head, rows) {
  const header = element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, cell))));
  const content = element(
    "table",
    {},
    element("caption", { class: "unseen" }, caption),
    element("thead", {}, header),
    element("tbody", {}, ...body),
  );
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, content);
}

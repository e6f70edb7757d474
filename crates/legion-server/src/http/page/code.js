// @ts-check
/** The same request as a command or a program. */

import { PYTHON_WORDS, format, isExact, parse } from "./json.js";

/** @typedef {"curl" | "python" | "javascript"} Language */

/**
 * Returns the code that sends a body to an address.
 *
 * @param {Language} language
 * @param {string} url
 * @param {string} body
 * @returns {string}
 */
export function code(language, url, body) {
  switch (language) {
    case "curl":
      return curl(url, body);
    case "python":
      return python(url, body);
    case "javascript":
      return javascript(url, body);
  }
}

/**
 * @param {string} url
 * @param {string} body
 */
function curl(url, body) {
  const quoted = (/** @type {string} */ text) => `'${text.replaceAll("'", "'\\''")}'`;
  return [
    `curl ${quoted(url)} \\`,
    "  -H 'Content-Type: application/json' \\",
    // Not -d, because that reads a file if the body begins with @.
    `  --data-raw ${quoted(body)}`,
  ].join("\n");
}

/**
 * @param {string} url
 * @param {string} body
 */
function python(url, body) {
  const value = parsed(body);
  // The escapes of a text in JSON are those of Python, too.
  const content = value
    ? [`    json=${format(value.of, { words: PYTHON_WORDS, step: "    ", indent: "    " })},`]
    : [`    data=${JSON.stringify(body)}.encode(),`, '    headers={"Content-Type": "application/json"},'];
  return [
    "import requests",
    "",
    "response = requests.post(",
    `    ${JSON.stringify(url)},`,
    ...content,
    "    timeout=60,",
    ")",
    "response.raise_for_status()",
    'print(response.json()["predictions"])',
  ].join("\n");
}

/**
 * @param {string} url
 * @param {string} body
 */
function javascript(url, body) {
  const value = parsed(body);
  // JSON.stringify would round an integer beyond 2^53.
  const content =
    value && isExact(value.of) ? `JSON.stringify(${format(value.of, { indent: "  " })})` : JSON.stringify(body);
  return [
    `const response = await fetch(${JSON.stringify(url)}, {`,
    '  method: "POST",',
    '  headers: { "Content-Type": "application/json" },',
    `  body: ${content},`,
    "});",
    "if (!response.ok) throw new Error(await response.text());",
    "console.log((await response.json()).predictions);",
  ].join("\n");
}

/**
 * Returns the value of a body, or nothing if it is not JSON.
 *
 * @param {string} body
 * @returns {{ of: any } | undefined}
 */
function parsed(body) {
  try {
    return { of: parse(body) };
  } catch {
    return undefined;
  }
}

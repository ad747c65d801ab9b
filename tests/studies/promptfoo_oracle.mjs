// Asks promptfoo itself, for tests.studies.promptfoo_suites and tests.studies.promptfoo_verdicts.
//
//   node promptfoo_oracle.mjs DIST prompts CONFIGS ANSWERS    renders the prompts of configurations with an echo provider
//   node promptfoo_oracle.mjs DIST verdicts PAIRS ANSWERS     judges (assertion, answer) pairs with runAssertion
//   node promptfoo_oracle.mjs DIST templates TEMPLATES ANSWERS  renders templates with promptfoo's Nunjucks
//
// DIST is the folder dist/src of an installed promptfoo 0.123. CONFIGS, PAIRS, TEMPLATES and ANSWERS are files with a JSON list.
import fs from "fs";
import { createRequire } from "module";
import path from "path";
import { pathToFileURL } from "url";

const [dist, mode, questions, answers] = process.argv.slice(2);
const copy = path.join(dist, "_with_more_exports.js");
const source = fs.readFileSync(path.join(dist, "index.js"), "utf8").replace(/\/\/# sourceMappingURL.*$/m, "");
fs.writeFileSync(copy, `${source}\nexport { resolveConfigs as resolve, evaluate$1 as run, Eval as Record_, runAssertion as judge };\n`);
const promptfoo = await import(pathToFileURL(copy));
const said = [];
const within = (milliseconds, promise) =>
  Promise.race([promise, new Promise((_, fail) => setTimeout(() => fail(new Error("took too long")), milliseconds))]);

// Assertions, transforms of the answer and other models are left out: only what is asked matters here. A case with an
// assertion of a red team gets metadata that says so, since promptfoo asks it otherwise.
const attacks = (assertions) =>
  Array.isArray(assertions) && assertions.some((one) => String(one?.type).startsWith("promptfoo:redteam:") || attacks(one?.assert));
const asked = (test) => {
  if (!test || typeof test !== "object") return test;
  const { assert, provider, providers, ...rest } = test;
  const { transform, postprocess, provider: judge, ...options } = rest.options ?? {};
  const metadata = attacks(assert) ? { ...rest.metadata, pluginId: "any", pluginConfig: {} } : rest.metadata;
  return { ...rest, options, metadata };
};

async function prompts(config) {
  process.chdir(path.dirname(config));
  const { testSuite } = await within(20000, promptfoo.resolve({ config: [config], providers: ["echo"] }, {}));
  const suite = {
    ...testSuite,
    providers: [{ id: () => "echo", callApi: async (prompt) => ({ output: prompt }) }],
    providerPromptMap: undefined,
    extensions: [],
    derivedMetrics: undefined,
    tracing: undefined,
    tests: testSuite.tests.map(asked),
    scenarios: testSuite.scenarios?.map((one) => ({ ...one, config: one.config.map(asked), tests: (one.tests ?? []).map(asked) })),
    defaultTest: asked(testSuite.defaultTest),
  };
  const record = new promptfoo.Record_({}, { persisted: false });
  const options = { maxConcurrency: 1, cache: false, eventSource: "library", silent: true, showProgressBar: false };
  await within(60000, promptfoo.run(suite, record, options));
  return record.results.map((result) => {
    const output = result.response?.output;
    return typeof output === "string" || output === undefined ? output ?? null : JSON.stringify(output);
  });
}

async function verdict({ assertion, answer, vars = {} }) {
  const test = { vars, assert: [assertion] };
  const found = await within(10000, promptfoo.judge({ assertion, test, providerResponse: { output: answer } }));
  return { pass: found.pass, score: found.score };
}

// As getNunjucksEngine of promptfoo configures it.
const nunjucks = createRequire(pathToFileURL(copy))("nunjucks").configure({ autoescape: false });
nunjucks.addFilter("load", (text) => JSON.parse(text));
const rendered = ({ text, variables }) => nunjucks.renderString(text, structuredClone(variables));

const modes = { prompts, verdicts: verdict, templates: rendered };
for (const item of JSON.parse(fs.readFileSync(questions, "utf8"))) {
  try {
    said.push({ value: await modes[mode](item) });
  } catch (error) {
    said.push({ error: String(error?.message ?? error).slice(0, 300) });
  }
}
fs.writeFileSync(answers, JSON.stringify(said));
process.exit(0);

// Reads request targets, one on each line, and prints how Node's parsers read the path of each, separated by tabs.
const { normalize } = require('path').posix;
const url = require('url');

const base = 'http://api.example/';
const parsers = [
  (target) => new URL(target, base).pathname,
  (target) => url.parse(target).pathname,
  (target) => url.parse(target, false, true).pathname,
  (target) => new URL(url.resolve(base, target)).pathname,
  (target) => target.split('?')[0],
];
const views = [(path) => path, normalize, decodeURIComponent, (path) => normalize(decodeURIComponent(path))];

for (const target of require('fs').readFileSync(0, 'utf8').split('\n').slice(0, -1)) {
  const readings = [];
  for (const parse of parsers) {
    for (const view of views) {
      try {
        readings.push(view(parse(target)));
      } catch {
        // The parser refuses the target.
      }
    }
  }
  console.log(readings.join('\t'));
}

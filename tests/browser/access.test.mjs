// The demo for everybody: audited by axe in both themes and widths, walked by keyboard alone, told when it is offline.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, afterEach, before, test } from 'node:test';
import { DESK, PHONE, Stage, eventually } from './stage.mjs';

const axe = readFileSync(createRequire(new URL('../../clients/js/package.json', import.meta.url)).resolve('axe-core/axe.min.js'), 'utf8');
const limit = { timeout: 240_000 };
const THEMES = ['light', 'dark'];

let stage, node;
before(async () => { stage = await Stage.open(); });
afterEach(() => stage.clear());
after(() => stage.close());

/** Nothing that axe knows is wrong with the page as it is now. */
async function audit(page, what) {
  await page.evaluate(axe);
  const { violations, passes } = await page.evaluate(() => globalThis.axe.run(document));
  const words = violations.map(({ id, help, nodes }) => `${id}: ${help}\n  ${nodes.map((n) => `${n.html}\n  ${n.failureSummary}`).join('\n  ')}`);
  assert.deepEqual(words, [], what);
  assert.ok(passes.length > 20, `${what}: axe looked at nothing`);
}

async function say(page, text) {
  await page.locator('#text').fill(text);
  await page.locator('#text').press('Enter');
}
const bubble = (page, text) => page.locator('#log .bubble', { hasText: text });
const banner = (page, text) => page.locator('#banner:not([data-kind=none])', { hasText: text }).waitFor();
const focused = (page) => page.evaluate(() => {
  const { id, ariaLabel, textContent, labels } = document.activeElement;
  return labels?.[0]?.textContent ?? ariaLabel ?? (id || textContent.trim());
});

/** A conversation with all that can be in one: groups, links, ticks, unread, somebody who types. */
async function lively(front) {
  const writer = await stage.person('bob', front);
  for (const text of ['Morning! The new build is on both nodes.', 'Notes are at https://example.org/notes', 'Shipped.']) await say(writer, text);
  await bubble(writer, 'Shipped.').locator('.ticks[data-state=sent]').waitFor();
  return writer;
}

for (const colorScheme of THEMES) {
  test(`axe finds nothing, ${colorScheme}`, limit, async () => {
    node = await stage.node();
    const front = await stage.front(node);
    const bob = await lively(front);
    const alice = await stage.person('alice', front, { ...DESK, colorScheme });
    await say(alice, 'Looks good from here.');
    await bubble(alice, 'Looks good').locator('.ticks[data-state=read]').waitFor();
    await bob.locator('#rooms button', { hasText: 'kitchen' }).click();
    await say(bob, 'Coffee is ready.');
    await alice.locator('#rooms b').waitFor();
    await bob.locator('#text').pressSequentially('Who wants');
    await bob.locator('#rooms button', { hasText: 'lobby' }).click();
    await bob.locator('#text').pressSequentially('And');
    await alice.locator('#typing', { hasText: 'bob is typing' }).waitFor();
    await stage.shot(alice, `desk-lively-${colorScheme}`);
    await audit(alice, 'a lively room on a desk');

    const phone = await stage.person('carol', front, { ...PHONE, colorScheme });
    await bubble(phone, 'Looks good').waitFor();
    await stage.shot(phone, `phone-lively-${colorScheme}`);
    await audit(phone, 'a lively room on a phone');
    for (const [button, pane] of [['#rooms-button', '#rooms-pane'], ['.people', '#people-pane']]) {
      await phone.locator(button).click();
      await phone.locator(pane).waitFor();
      await stage.shot(phone, `phone-${pane.slice(1)}-${colorScheme}`);
      await audit(phone, `${pane} on a phone`);
      await phone.keyboard.press('Escape');
    }

    const who = await stage.blank({ ...PHONE, colorScheme });
    await who.goto(`${front.url}/demo`);
    await stage.shot(who, `phone-who-${colorScheme}`);
    await audit(who, 'who are you?');

    const dot = () => alice.locator('#people .face[data-here=yes]').first().evaluate((face) => getComputedStyle(face, '::after').backgroundColor);
    const here = await dot();
    front.nodes = [];
    node.signal('SIGKILL');
    await banner(alice, 'Connection lost');
    assert.notEqual(await dot(), here, 'who is here is not known any more');
    await say(alice, 'Written while nobody listens.');
    await stage.shot(alice, `desk-lost-${colorScheme}`);
    await audit(alice, 'connection lost');
  });
}

test('everything can be reached and done by keyboard alone', limit, async () => {
  const front = await stage.front(await stage.node());
  await lively(front);
  const alice = await stage.person('alice', front, DESK);
  await bubble(alice, 'Shipped.').waitFor();
  const { keyboard } = alice;
  const walk = async (key) => {
    const stops = [];
    for (let i = 0; i < 20; i++) {
      await keyboard.press(key);
      const stop = await focused(alice);
      if (stops.includes(stop)) break;
      stops.push(stop);
    }
    return stops;
  };
  await alice.evaluate(() => document.activeElement.blur());
  const forward = await walk('Tab');
  for (const stop of ['To the message field', '# lobby', 'kitchen', 'music', 'Open another room', 'Open the room', 'Messages in lobby', 'https://example.org/notes', 'Message']) {
    assert.ok(forward.some((each) => each.includes(stop.replace('# ', ''))), `${stop} is not among ${forward.join(' | ')}`);
  }
  // What has the focus can be seen to have it.
  for (const selector of ['#rooms button', '#room-name', '#log .messages', '#log a', '#text']) {
    await alice.locator(selector).first().focus();
    await keyboard.press('Shift');
    const outline = await alice.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(outline, 'none', `the focus on ${selector} cannot be seen`);
  }
  await alice.locator('#rooms button', { hasText: 'kitchen' }).focus();
  await keyboard.press('Enter');
  assert.equal(await alice.locator('#title').innerText(), 'kitchen');
  await keyboard.type('Hello, kitchen.');
  await keyboard.press('Enter');
  await bubble(alice, 'Hello, kitchen.').locator('.ticks[data-state=sent]').waitFor();
  await alice.locator('#room-name').focus();
  await keyboard.type('garden');
  await keyboard.press('Enter');
  await alice.locator('#title', { hasText: 'garden' }).waitFor();
  await alice.locator('#rooms button', { hasText: 'lobby' }).focus();
  await keyboard.press('Space');
  const messages = alice.locator('#log .messages');
  await messages.focus();
  assert.equal(await messages.getAttribute('role'), 'log');
  const skip = alice.locator('.skip');
  await skip.focus();
  assert.ok((await skip.boundingBox()).y >= 0, 'the skip link comes into view');
  await keyboard.press('Enter');
  assert.equal(await focused(alice), 'Message');
  assert.deepEqual(alice.troubles, []);
});

test('who is offline is told so, and what was written meanwhile is sent', limit, async () => {
  const front = await stage.front(await stage.node());
  const bob = await stage.person('bob', front);
  const alice = await stage.person('alice', front, PHONE);
  await say(alice, 'before');
  await bubble(bob, 'before').waitFor();
  await alice.context().setOffline(true);
  await banner(alice, 'You are offline');
  await say(alice, 'from the tunnel');
  await stage.shot(alice, 'phone-offline');
  await say(bob, 'meanwhile');
  await alice.context().setOffline(false);
  await bubble(bob, 'from the tunnel').waitFor();
  await bubble(alice, 'meanwhile').waitFor();
  await eventually('the line is gone', async () => (await alice.locator('#banner').getAttribute('data-kind')) === 'none');
  await bubble(alice, 'from the tunnel').locator('.ticks:is([data-state=sent], [data-state=read])').waitFor();
});

test('a screen reader hears one message in full, and many as a number', limit, async () => {
  const front = await stage.front(await stage.node());
  const alice = await stage.person('alice', front), bob = await stage.person('bob', front);
  const announced = (text) => alice.locator('#announcer[aria-live=polite]', { hasText: text }).waitFor();
  await alice.locator('#people .person', { hasText: 'bob' }).waitFor(); // else it is history, and nobody's news
  await say(bob, 'Good morning!');
  await announced('bob: Good morning!');
  const says = (name, ...texts) => bob.evaluate(async ([where, all]) => {
    const { roomcast } = await import('/roomcast.js');
    const rc = roomcast('/ws?user=bob');
    const log = rc.join(where);
    await Promise.all(all.map((text) => log.send({ text }))); // in one go: they are one piece of news
    rc.close();
  }, [name, texts]);
  await says('lobby', 'one', 'two', 'three');
  await announced('3 new messages');
  await says('kitchen', 'four');
  await announced('New messages in kitchen');
});

test('while no node answers, the line says that it is connecting', limit, async () => {
  const front = await stage.front(await stage.node());
  const page = await stage.blank(PHONE);
  await page.routeWebSocket(/\/ws/, () => {}); // it opens, and nobody says welcome
  await page.goto(`${front.url}/demo?user=alice`);
  await banner(page, 'Connecting…');
  await stage.shot(page, 'phone-connecting');
  await audit(page, 'connecting');
});

test('a drain is announced as one', limit, async () => {
  const [one, two] = await Promise.all([stage.node(), stage.node()]);
  const front = await stage.front(one, two);
  const alice = await stage.person('alice', front);
  await say(alice, 'before'); // who has not been connected yet loses no connection
  await bubble(alice, 'before').locator('.ticks[data-state=sent]').waitFor();
  await alice.evaluate(() => {
    window.lines = [];
    const look = ({ target }) => {
      const element = document.getElementById('banner');
      window.lines.push([element.dataset.kind, element.textContent, element.getAttribute('role')]);
    };
    new MutationObserver((all) => all.forEach(look)).observe(document.getElementById('banner'), { subtree: true, childList: true, characterData: true, attributes: true });
  });
  one.signal('SIGTERM');
  await alice.waitForFunction(() => window.lines.some(([, text]) => text.includes('Connected again')));
  const lines = await alice.evaluate(() => window.lines);
  assert.ok(lines.some(([kind, text, role]) => kind === 'warn' && text.includes('maintenance') && role === 'status'), JSON.stringify(lines));
});

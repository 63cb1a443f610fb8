'use strict';
// What the node says becomes text and numbers here, never markup: elements are made one by one, and their text is set as text.
(() => {
  const SVG = 'http://www.w3.org/2000/svg';
  const $ = id => document.getElementById(id);
  const make = (name, cls, text) => {
    const e = document.createElement(name);
    if (cls) e.className = cls;
    if (text !== undefined) e.textContent = clean(text);
    return e;
  };
  const draw = (name, attributes) => {
    const e = document.createElementNS(SVG, name);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
    return e;
  };
  // Control characters, and marks that turn the direction of writing, show as what they are.
  const clean = text => String(text).replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, '\ufffd');
  const set = (e, text) => { const t = clean(text); if (e.textContent !== t) e.textContent = t; };
  const state = (e, cls) => { if (e.className !== cls) e.className = cls; };

  const scaled = (v, unit) => {
    const steps = ['', 'K', 'M', 'G', 'T'];
    let i = 0;
    while (v >= 1000 && i < steps.length - 1) { v /= 1000; i++; }
    return (v >= 100 || i === 0 ? Math.round(v) : v.toFixed(1)) + ' ' + steps[i] + unit;
  };
  const bytes = v => scaled(v, 'B');
  const rate = v => v === undefined ? '' : scaled(v, 'B/s');
  const millis = s => s >= 1 ? s.toFixed(1) + ' s' : (1000 * s).toFixed(s < 0.01 ? 2 : s < 0.1 ? 1 : 0) + ' ms';
  const span = s => {
    s = Math.max(0, Math.round(s));
    if (s < 120) return s + ' s';
    if (s < 7200) return Math.floor(s / 60) + ' min';
    if (s < 172800) return Math.floor(s / 3600) + ' h ' + Math.floor(s % 3600 / 60) + ' min';
    return Math.floor(s / 86400) + ' days';
  };
  const clock = t => new Date(t).toLocaleTimeString('en-GB');

  // Rates: a counter's difference between looks that are a second or two apart.
  const counters = new Map();
  let looked = 0;
  const perSecond = (key, value, at) => {
    let c = counters.get(key);
    if (!c || value < c.value) { counters.set(key, { value, at, rate: 0, look: looked }); return 0; }
    const passed = (at - c.at) / 1000;
    if (passed >= 0.9) { c.rate = (value - c.value) / passed; c.value = value; c.at = at; }
    c.look = looked;
    return c.rate;
  };

  // Lists: what stays keeps its element, so that focus and selection stay, too.
  const each = (parent, list, key, create, update) => {
    const have = new Map([...parent.children].map(e => [e.dataset.key, e]));
    const times = new Map();
    let before = null;
    for (const item of list) {
      let k = key(item);
      const n = times.get(k) || 0;
      times.set(k, n + 1);
      if (n) k += ` #${n}`;
      let e = have.get(k);
      have.delete(k);
      if (!e) { e = create(item); e.dataset.key = k; }
      const next = before ? before.nextSibling : parent.firstChild;
      if (next !== e) parent.insertBefore(e, next);
      update(e, item);
      before = e;
    }
    for (const e of have.values()) e.remove();
  };

  const names = { clients: 'Clients', inlets: 'Inlets', inlet: 'Inlet', relay: 'Relay', outlet: 'Outlet', target: 'Target' };
  const makeStory = s => {
    const story = make('article', 'story');
    s.places.forEach((p, i) => {
      if (i > 0) {
        const leg = make('div', 'leg');
        const above = make('div', 'above'), below = make('div', 'below');
        above.append(make('span', 'to'), make('span', 'from'));
        below.append(make('b'), make('span'));
        const line = draw('svg', { viewBox: '0 0 100 14', preserveAspectRatio: 'none', 'aria-hidden': 'true' });
        line.append(draw('path', { class: 'rail', d: 'M2 7H98' }), draw('path', { class: 'flow', d: 'M2 7H98' }));
        leg.append(above, line, below);
        story.append(leg);
      }
      const box = make('div', 'place');
      box.append(make('b'), make('span'), make('i'));
      story.append(box);
    });
    return story;
  };
  const showStory = (e, s, at) => {
    e.setAttribute('aria-label', clean(`${s.end} ${s.name}`));
    const boxes = [...e.querySelectorAll('.place')], legs = [...e.querySelectorAll('.leg')];
    s.places.forEach((p, i) => {
      const [kind, name, detail] = boxes[i].children;
      state(boxes[i], p.here ? 'place here' : 'place');
      set(kind, (names[p.kind] || p.kind) + (p.here ? ' · this box' : ''));
      set(name, p.name || (p.kind === 'clients' || p.kind === 'inlets' ? '' : '—'));
      set(detail, p.detail || '');
    });
    s.legs.forEach((l, i) => {
      const key = `${s.end} ${s.name} ${i} `;
      const there = l.to_target === undefined ? 0 : perSecond(key + 'there', l.to_target, at);
      const back = l.to_client === undefined ? 0 : perSecond(key + 'back', l.to_client, at);
      const flows = l.state === 'up' && there + back > 0;
      state(legs[i], ['leg', l.state, flows ? 'flows' : '', back > there ? 'back' : ''].join(' ').trim());
      const [to, from] = legs[i].querySelector('.above').children;
      set(to, l.to_target === undefined || l.state !== 'up' ? '' : rate(there) + ' →');
      set(from, l.to_client === undefined || l.state !== 'up' ? '' : '← ' + rate(back));
      const [word, more] = legs[i].querySelector('.below').children;
      set(word, l.state === 'down' ? 'down' : l.round_trip_seconds ? millis(l.round_trip_seconds) : l.state === 'unknown' ? 'not known' : 'up');
      set(more, l.reason ? ': ' + l.reason : l.whole && l.round_trip_seconds ? ' end to end' : '');
      legs[i].title = clean(l.reason || '');
    });
  };

  const spark = (svg, past, every) => {
    const W = 210, H = 34, n = past.in.length, room = Math.max(n, Math.round(60 / every));
    const top = Math.max(1, ...past.in, ...past.out);
    const path = (list, area) => {
      if (n === 0) return '';
      const x = i => (W * (room - n + i) / Math.max(room - 1, 1)).toFixed(1), y = v => (H - 1 - (H - 4) * v / top).toFixed(1);
      const line = list.map((v, i) => `${i ? 'L' : 'M'}${x(i)} ${y(v)}`).join('');
      return area ? line + `L${x(n - 1)} ${H}L${x(0)} ${H}Z` : line;
    };
    const [, backArea, back, thereArea, there] = svg.children;
    backArea.setAttribute('d', path(past.out, true));
    back.setAttribute('d', path(past.out));
    thereArea.setAttribute('d', path(past.in, true));
    there.setAttribute('d', path(past.in));
    svg.setAttribute('aria-label', `up to ${rate(top)}`);
  };
  const makePortal = p => {
    const row = make('tr'), name = make('td', 'wrap'), chart = make('td', 'chart');
    name.append(make('b', '', p.name), make('small', '', p.end));
    const svg = draw('svg', { class: 'spark', viewBox: '0 0 210 34', preserveAspectRatio: 'none', role: 'img' });
    svg.append(draw('line', { x1: 0, x2: 210, y1: 33.5, y2: 33.5 }), ...['out area', 'out', 'in area', 'in'].map(c => draw('path', { class: c })));
    chart.append(svg);
    row.append(name, chart, make('td', 'n to'), make('td', 'n from'), make('td', 'n'), make('td', 'n'), make('td', 'n'), make('td', 'n'));
    return row;
  };

  let sortBy = 'name', latest = null, past = null;
  const showPortals = (list, at) => {
    const rows = list.map(p => {
      const key = `portal ${p.end} ${p.name} `;
      const read = perSecond(key + 'in', p.bytes_in, at), wrote = perSecond(key + 'out', p.bytes_out, at);
      const [toTarget, toClient] = p.end === 'inlet' ? [read, wrote] : [wrote, read];
      return { ...p, toTarget, toClient, fresh: perSecond(key + 'new', p.opened, at), setup: p.setup_p99_seconds };
    });
    if (sortBy === 'name') rows.sort((a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
    else rows.sort((a, b) => b[sortBy] - a[sortBy]);
    const body = $('portals').tBodies[0];
    each(body, rows, p => p.end + ' ' + p.name, makePortal, (e, p) => {
      const cells = e.children;
      set(cells[2], rate(p.toTarget));
      set(cells[3], rate(p.toClient));
      set(cells[4], p.open);
      set(cells[5], p.fresh.toFixed(p.fresh < 10 ? 1 : 0) + '/s');
      set(cells[6], p.opened ? `≤ ${millis(p.setup_p50_seconds)} / ${millis(p.setup_p99_seconds)}` : '—');
      set(cells[7], p.refused);
    });
    if (!rows.length) nothing(body, 8, 'No portals.');
    showPast();
    for (const th of $('portals').tHead.rows[0].cells) {
      const b = th.firstElementChild;
      if (b && b.dataset.key === sortBy) th.setAttribute('aria-sort', sortBy === 'name' ? 'ascending' : 'descending'); else th.removeAttribute('aria-sort');
    }
  };
  const nothing = (body, columns, text) => {
    const row = make('tr'), cell = make('td', 'none', text);
    cell.colSpan = columns;
    row.append(cell);
    body.append(row);
  };
  const showPast = () => {
    if (!past) return;
    let longest = 0;
    for (const p of past.portals) {
      longest = Math.max(longest, p.in.length);
      const row = [...$('portals').tBodies[0].rows].find(r => r.dataset.key === p.end + ' ' + p.name);
      if (!row) continue;
      const toTarget = p.end === 'inlet' ? p.in : p.out, toClient = p.end === 'inlet' ? p.out : p.in;
      spark(row.querySelector('.spark'), { in: toTarget, out: toClient }, past.every_seconds);
    }
    set($('span'), longest ? 'the last ' + span(Math.max(60, longest * past.every_seconds)) : '');
  };

  const glance = (title, value, bad) => ({ title, value, bad });
  const show = v => {
    const at = Date.parse(v.stats.at);
    looked++;
    document.title = `${clean(v.node)} · sallyport`;
    set($('node'), v.node);
    set($('identity'), v.identifier);
    set($('program'), `${v.version}, runs for ${span(v.stats.uptime_seconds)}`);
    const dead = v.stories.reduce((n, s) => n + (s.legs.some(l => l.state === 'down') ? 1 : 0), 0);
    const wrong = Math.max(v.wrong.length, dead);
    set($('state'), wrong === 0 ? 'All works' : wrong === 1 ? '1 thing is wrong' : `${wrong} things are wrong`);
    state($('state'), wrong === 0 ? 'pill up' : 'pill down');
    $('wrong').hidden = v.wrong.length === 0;
    each($('wrong').querySelector('ul'), v.wrong, w => w, w => make('li', '', w), () => {});

    let there = 0, back = 0;
    for (const p of v.stats.portals) {
      const a = perSecond(`sum ${p.end} ${p.name} in`, p.bytes_in, at), b = perSecond(`sum ${p.end} ${p.name} out`, p.bytes_out, at);
      there += p.end === 'inlet' ? a : b;
      back += p.end === 'inlet' ? b : a;
    }
    const list = [glance('To targets', rate(there)), glance('To clients', rate(back)), glance('Connections', v.open)];
    if (v.stats.credential_seconds !== undefined) list.push(glance('Credential ends in', v.stats.credential_seconds ? span(v.stats.credential_seconds) : 'none', v.stats.credential_seconds < 300));
    if (v.authority) list.push(glance('Authority', v.authority.state === 'up' ? 'reachable' : v.authority.state, v.authority.late));
    if (v.keys_until) list.push(glance('Keys end in', span(v.keys_until - at / 1000).replace(/ h .*/, ' h')));
    if (v.stats.records) list.push(glance('Records', `${v.stats.records.written}` + (v.stats.records.dropped ? `, ${v.stats.records.dropped} lost` : ''), v.stats.records.dropped > 0));
    each($('glance'), list, g => g.title, g => { const d = make('div'); d.append(make('dt', '', g.title), make('dd')); return d; },
      (e, g) => { set(e.lastChild, g.value); state(e.lastChild, g.bad ? 'down' : ''); });

    const stories = document.querySelector('#ways .list');
    each(stories, v.stories, s => `${s.end} ${s.name} ${s.places.map(p => p.kind)}`, makeStory, (e, s) => showStory(e, s, at));
    if (!v.stories.length) stories.append(make('p', 'soft', 'No inlets, outlets or relay names yet: sallyport tcp-inlet create makes one.'));
    if (v.stories_left) stories.append(make('p', 'soft', `and ${v.stories_left} more`));

    showPortals(v.stats.portals, at);
    set($('open'), v.open > v.connections.length ? `${v.connections.length} of ${v.open}` : '');
    const body = $('connections').tBodies[0];
    each(body, v.connections, c => `${c.end} ${c.portal} ${c.id || c.began}`, () => {
      const row = make('tr');
      const other = make('td', 'wrap');
      other.append(make('span'), make('small', 'mono'));
      row.append(make('td'), make('td', 'mono'), other, make('td', 'n'), make('td', 'n to'), make('td', 'n from'));
      return row;
    }, (e, c) => {
      const cells = e.children;
      set(cells[0], c.portal);
      set(cells[1], c.client || '—');
      set(cells[2].firstChild, c.attributes || '');
      set(cells[2].lastChild, c.peer ? c.peer.slice(0, 9) + '…' : '');
      cells[2].title = clean(c.peer || '');
      set(cells[3], span((at - Date.parse(c.began)) / 1000) + (c.away ? ', waits for a path' : c.resumed ? `, resumed ${c.resumed}×` : ''));
      set(cells[4], bytes(c.to_target));
      set(cells[5], bytes(c.to_client));
    });
    if (!v.connections.length) nothing(body, 6, 'Nobody is connected.');

    const events = [...v.events].reverse();
    each($('events'), events, ev => ev.time + ev.text, () => { const li = make('li'); li.append(make('time'), make('span'), make('small')); return li; }, (e, ev) => {
      state(e, ev.level === 'ERROR' ? 'error' : ev.level === 'WARN' ? 'warn' : '');
      const [time, text, more] = e.children;
      set(time, clock(ev.time));
      set(text, ev.text + (ev.times > 1 ? ` (${ev.times}×)` : ''));
      set(more, Object.entries(ev.with || {}).sort().map(([k, w]) => `${k} ${w}`).join(' · '));
    });

    each($('left'), Object.entries(v.stats.headroom).sort(), ([k]) => k, ([k]) => {
      const d = make('div'), m = make('meter'), value = make('dd');
      m.min = 0; m.max = 1; m.low = 0.2; m.high = 0.4; m.optimum = 1;
      m.setAttribute('aria-label', clean(k));
      d.append(make('dt', '', k.replace('_', ' ')), value, m);
      return d;
    }, (e, [, left]) => { set(e.children[1], Math.floor(100 * left) + ' %'); e.children[2].value = left; state(e.children[1], left < 0.2 ? 'down' : ''); });
    for (const [k, c] of counters) if (looked - c.look > 10) counters.delete(k);
  };

  let paused = false, failed = 0, turns = 0;
  const ask = async path => {
    const answer = await fetch(path, { cache: 'no-store', credentials: 'same-origin', signal: AbortSignal.timeout(4000) }).catch(() => null);
    return answer && answer.ok ? answer.json().catch(() => null) : null;
  };
  const turn = async () => {
    if (!paused && !document.hidden) {
      const v = await ask('/page/now');
      if (v && turns++ % 5 === 0) past = await ask('/page/past') || past;
      if (v) {
        failed = 0;
        latest = v;
        document.body.classList.remove('stale');
        show(v);
      } else if (++failed >= 2) {
        document.body.classList.add('stale');
        set($('state'), latest ? `No answer since ${clock(latest.stats.at)}` : 'The node does not answer');
        state($('state'), 'pill down');
      }
    }
    setTimeout(turn, 1000);
  };
  $('pause').addEventListener('click', () => {
    paused = !paused;
    set($('pause'), paused ? 'Go on' : 'Pause');
    $('pause').setAttribute('aria-pressed', paused);
  });
  $('portals').tHead.addEventListener('click', e => {
    const key = e.target.dataset && e.target.dataset.key;
    if (key && latest) { sortBy = key; showPortals(latest.stats.portals, Date.parse(latest.stats.at)); }
  });
  turn();
})();
